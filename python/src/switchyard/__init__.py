# SPDX-License-Identifier: Apache-2.0
"""Client of Switchyard, which serves Switch Transformers as a cluster.

>>> from switchyard import Switchyard
>>> with Switchyard.local("deploy/models/switch-mini") as client:                     # doctest: +SKIP
...     print(client.generate("A horse! a horse! my <extra_id_0> for a horse!").filled)
A horse! a horse! my kingdom for a horse!

:class:`Switchyard` is the client, :class:`AsyncSwitchyard` the same for asyncio. ``local`` starts a cluster on this machine; the
classes themselves call one that runs. Everything here is typed, and every call raises :class:`SwitchyardError`.
"""

from switchyard._async_client import AsyncSwitchyard, AsyncTokenStream
from switchyard._calls import EncodeInput, ScoreInput
from switchyard._client import Switchyard, TokenStream
from switchyard._connection import TLS, Metadata, Token
from switchyard._descriptions import (
    ClusterInfo,
    GatewayLoad,
    HostLoad,
    LayerExperts,
    LayerLoad,
    LoadedCheckpoint,
    ModelInfo,
    PoolInfo,
    ReplicaInfo,
    RolloutInfo,
)
from switchyard._enums import DropReason, DType, FinishReason, HealthStatus, ReplicaState, RolloutPhase, Stack
from switchyard._errors import (
    CallCancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    LocalClusterError,
    NotFoundError,
    PartialError,
    QueueFullError,
    ResourceExhaustedError,
    SwitchyardError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from switchyard._local import LocalCluster, LocalOptions, find_binary
from switchyard._measures import EncodeResult, LayerRouterLosses, RouterLosses, ScoreResult
from switchyard._options import (
    CallOptions,
    EncodeOneOptions,
    EncodeOptions,
    GenerateOptions,
    GenerationParameters,
    Input,
    RequestOptions,
    ScoreOneOptions,
    ScoreOptions,
)
from switchyard._results import (
    DroppedTokens,
    GeneratedToken,
    GenerateResult,
    Generation,
    Routes,
    TokenCandidate,
    TokenLogprob,
    Usage,
)
from switchyard._retry import RetryPolicy
from switchyard._text import fill, spans

__version__ = "0.1.0"

__all__ = [
    "AsyncSwitchyard",
    "AsyncTokenStream",
    "CallCancelledError",
    "CallOptions",
    "ClusterInfo",
    "DType",
    "DeadlineExceededError",
    "DropReason",
    "DroppedTokens",
    "EncodeInput",
    "EncodeOneOptions",
    "EncodeOptions",
    "EncodeResult",
    "FailedPreconditionError",
    "FinishReason",
    "GatewayLoad",
    "GenerateOptions",
    "GenerateResult",
    "GeneratedToken",
    "Generation",
    "GenerationParameters",
    "HealthStatus",
    "HostLoad",
    "Input",
    "InternalError",
    "InvalidArgumentError",
    "LayerExperts",
    "LayerLoad",
    "LayerRouterLosses",
    "LoadedCheckpoint",
    "LocalCluster",
    "LocalClusterError",
    "LocalOptions",
    "Metadata",
    "ModelInfo",
    "NotFoundError",
    "PartialError",
    "PoolInfo",
    "QueueFullError",
    "ReplicaInfo",
    "ReplicaState",
    "RequestOptions",
    "ResourceExhaustedError",
    "RetryPolicy",
    "RolloutInfo",
    "RolloutPhase",
    "RouterLosses",
    "Routes",
    "ScoreInput",
    "ScoreOneOptions",
    "ScoreOptions",
    "ScoreResult",
    "Stack",
    "Switchyard",
    "SwitchyardError",
    "TLS",
    "Token",
    "TokenCandidate",
    "TokenLogprob",
    "TokenStream",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Usage",
    "fill",
    "find_binary",
    "spans",
]
