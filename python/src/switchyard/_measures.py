# SPDX-License-Identifier: Apache-2.0
"""What encoding and scoring return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple, Union

import numpy
from numpy.typing import NDArray

from switchyard._enums import Stack, member
from switchyard._results import Routes, TokenLogprob, Usage, matrix, routes_of
from switchyard.v1 import gateway_pb2


@dataclass(frozen=True, eq=False)
class EncodeResult:
    """The encoder's hidden states of an input."""

    #: float32: ``[tokens, d_model]``, or ``[d_model]`` for a mean. It cannot be written to; copy it for that.
    hidden_states: NDArray[numpy.float32]
    #: The token ids that were encoded.
    token_ids: Tuple[int, ...]
    usage: Usage
    #: The input's way through the encoder, if return_routes asked for it.
    encoder_routes: Optional[Routes] = field(default=None, repr=False)

    @staticmethod
    def of(message: Union[gateway_pb2.EncodeResponse, gateway_pb2.EncodeResult], pooled: bool) -> EncodeResult:
        """Reads a message."""
        states = matrix(message.hidden_states, "hidden_states")
        return EncodeResult(
            hidden_states=states.reshape(-1) if pooled else states,
            token_ids=tuple(message.token_ids),
            usage=Usage.of(message.usage),
            encoder_routes=routes_of(message, "encoder_routes"),
        )


@dataclass(frozen=True)
class LayerRouterLosses:
    """The losses of one sparse layer's router, without their factors."""

    stack: Stack
    #: The index of the block that holds the sparse layer.
    layer: int
    #: Number of experts times the sum over them of the share of tokens sent there times the mean probability.
    load_balancing_loss: float
    #: The mean over the tokens of the square of the logarithm of the sum of the exponentials of the router's logits.
    z_loss: float


@dataclass(frozen=True)
class RouterLosses:
    """The losses that routers are trained with, without their factors, for one input and target."""

    #: Each sparse layer's losses, the encoder's first.
    layers: Tuple[LayerRouterLosses, ...]
    #: The layers' load balancing losses added up.
    load_balancing_loss: float
    #: The layers' z-losses added up.
    z_loss: float
    #: ``encoder_aux_loss`` of transformers.
    transformers_encoder_aux_loss: float
    #: ``encoder_z_loss`` of transformers.
    transformers_encoder_z_loss: float
    #: ``decoder_aux_loss`` of transformers.
    transformers_decoder_aux_loss: float
    #: ``decoder_z_loss`` of transformers.
    transformers_decoder_z_loss: float

    @staticmethod
    def of(message: gateway_pb2.RouterLosses) -> RouterLosses:
        """Reads a message."""
        layers = tuple(
            LayerRouterLosses(member(Stack, layer.stack), layer.layer, layer.load_balancing_loss, layer.z_loss)
            for layer in message.layers
        )
        return RouterLosses(
            layers=layers,
            load_balancing_loss=message.load_balancing_loss,
            z_loss=message.z_loss,
            transformers_encoder_aux_loss=message.transformers_encoder_aux_loss,
            transformers_encoder_z_loss=message.transformers_encoder_z_loss,
            transformers_decoder_aux_loss=message.transformers_decoder_aux_loss,
            transformers_decoder_z_loss=message.transformers_decoder_z_loss,
        )


@dataclass(frozen=True, eq=False)
class ScoreResult:
    """How likely a target is."""

    #: One entry per token of the target.
    logprobs: Tuple[TokenLogprob, ...]
    #: The sum of the log-probabilities.
    total_logprob: float
    #: The mean of the negated log-probabilities: the cross-entropy.
    loss: float
    usage: Usage
    #: The input's way through the encoder, if return_routes asked for it.
    encoder_routes: Optional[Routes] = field(default=None, repr=False)
    #: The target's way through the decoder, if return_routes asked for it.
    decoder_routes: Optional[Routes] = field(default=None, repr=False)
    #: If return_router_losses asked for them.
    router_losses: Optional[RouterLosses] = None
    #: float32, ``[target tokens, vocabulary]``, if return_logits asked for them. It cannot be written to.
    logits: Optional[NDArray[numpy.float32]] = field(default=None, repr=False)

    @staticmethod
    def of(message: Union[gateway_pb2.ScoreResponse, gateway_pb2.ScoreResult]) -> ScoreResult:
        """Reads a message."""
        return ScoreResult(
            logprobs=tuple(TokenLogprob.of(entry) for entry in message.logprobs),
            total_logprob=message.total_logprob,
            loss=message.loss,
            usage=Usage.of(message.usage),
            encoder_routes=routes_of(message, "encoder_routes"),
            decoder_routes=routes_of(message, "decoder_routes"),
            router_losses=RouterLosses.of(message.router_losses) if message.HasField("router_losses") else None,
            logits=matrix(message.logits, "logits") if message.HasField("logits") else None,
        )
