# SPDX-License-Identifier: Apache-2.0
"""The protocol's enumerations, under names in lower case."""

from __future__ import annotations

from enum import Enum
from typing import Type, TypeVar


class _Name(str, Enum):
    """A value that equals its text."""

    def __str__(self) -> str:
        return str(self.value)


class FinishReason(_Name):
    """Why a sequence ended."""

    UNSPECIFIED = "unspecified"
    #: The model generated its end-of-sequence token.
    END_OF_SEQUENCE = "end_of_sequence"
    #: As many tokens as asked for were generated.
    LENGTH = "length"
    #: One of the stop texts appeared.
    STOP = "stop"


class Stack(_Name):
    """One of the two halves of the model."""

    UNSPECIFIED = "unspecified"
    ENCODER = "encoder"
    DECODER = "decoder"


class DropReason(_Name):
    """Why a token got no expert's output."""

    UNSPECIFIED = "unspecified"
    #: The expert had as many tokens of the sequence as its capacity allows.
    CAPACITY = "capacity"
    #: No reply came before the layer's deadline.
    TIMEOUT = "timeout"
    #: No host that holds the expert could be reached.
    UNAVAILABLE = "unavailable"
    #: The hosts that hold the expert refused more work.
    OVERLOADED = "overloaded"
    #: A host's reply had the wrong shape, or values that are not finite.
    BAD_REPLY = "bad_reply"


class DType(_Name):
    """How numbers are stored."""

    UNSPECIFIED = "unspecified"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class ReplicaState(_Name):
    """An expert host's state, as the gateway sees it."""

    UNSPECIFIED = "unspecified"
    #: No connection.
    DISCONNECTED = "disconnected"
    #: Connected; what it holds is not known yet.
    UNVERIFIED = "unverified"
    #: Takes work.
    READY = "ready"
    #: Failed too often; gets no work until a probe succeeds.
    EJECTED = "ejected"
    #: Finishes its calls and takes no new ones.
    DRAINING = "draining"
    #: Holds another model or the wrong experts.
    MISMATCHED = "mismatched"
    #: Another address of a process that is already a replica.
    SPARE = "spare"
    #: An audit found wrong outputs.
    QUARANTINED = "quarantined"


class RolloutPhase(_Name):
    """How far a change of a gateway's checkpoint is."""

    UNSPECIFIED = "unspecified"
    #: One checkpoint is served, and no other one is loaded.
    STEADY = "steady"
    #: The new checkpoint is being loaded, here and on the hosts; it gets no requests.
    LOADING = "loading"
    #: The new checkpoint gets its share of the new requests.
    CANARY = "canary"
    #: One checkpoint gets all new requests; the other one is still loaded.
    LEAVING = "leaving"


class HealthStatus(_Name):
    """Whether a service takes calls."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


_Member = TypeVar("_Member", bound=_Name)


def member(kind: Type[_Member], number: int) -> _Member:
    """The member with a number of the protocol, which are in order from 0; an unknown number is the first, "not given"."""
    members = list(kind)
    return members[number] if 0 < number < len(members) else members[0]


def number(value: _Name) -> int:
    """The protocol's number of a member."""
    return list(type(value)).index(value)
