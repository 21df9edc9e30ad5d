# SPDX-License-Identifier: Apache-2.0
"""Errors: one class for each status code that a gateway answers with."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Type, Union

import grpc

from switchyard._retry import Pushback, Trailers


class SwitchyardError(Exception):
    """A call that failed, or a cluster that did not start.

    The subclasses stand for status codes; docs/protocol.md of the project says when a gateway uses each.
    """

    #: The status code that programs act on.
    code: grpc.StatusCode
    #: The sentence that people read, as the gateway wrote it.
    message: str
    #: Seconds after which the gateway takes the call again, if it said so.
    retry_after: Optional[float]
    #: How often the call was sent.
    attempts: int

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        retry_after: Optional[float] = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.attempts = attempts

    def __str__(self) -> str:
        tried = f" (sent {self.attempts} times)" if self.attempts > 1 else ""
        return f"{self.code.name}: {self.message}{tried}"


class InvalidArgumentError(SwitchyardError, ValueError):
    """INVALID_ARGUMENT: a field is wrong; the message names it, its limit and its value."""


class ResourceExhaustedError(SwitchyardError):
    """RESOURCE_EXHAUSTED: the queue is full, or an input or an answer is over its limit."""


class QueueFullError(ResourceExhaustedError):
    """RESOURCE_EXHAUSTED with a time to retry: the gateway has no place for the call now."""


class DeadlineExceededError(SwitchyardError, TimeoutError):
    """DEADLINE_EXCEEDED: the call's deadline passed, or a layer's under a strict drop policy."""


class CallCancelledError(SwitchyardError):
    """CANCELLED: this side or the gateway ended the call."""


class UnavailableError(SwitchyardError, ConnectionError):
    """UNAVAILABLE: the gateway cannot be reached or is draining, or under a strict drop policy no host has an expert."""


class FailedPreconditionError(SwitchyardError):
    """FAILED_PRECONDITION: the call does not fit what the gateway serves or how it is set up."""


class UnauthenticatedError(SwitchyardError):
    """UNAUTHENTICATED: no token, or a wrong one."""


class NotFoundError(SwitchyardError):
    """NOT_FOUND: there is no such service."""


class UnimplementedError(SwitchyardError):
    """UNIMPLEMENTED: the gateway does not know the method."""


class InternalError(SwitchyardError):
    """INTERNAL: the gateway failed, or its answer could not be read."""


class LocalClusterError(SwitchyardError):
    """A cluster on this machine that did not start; the message has the last lines that it printed."""


class PartialError(SwitchyardError):
    """Some inputs of a call with several have no answer.

    Code and message are those of the first one.
    """

    #: The answers in the order of the inputs; None where there is none.
    results: Sequence[Optional[object]]
    #: What went wrong, by the index of the input.
    errors: Dict[int, SwitchyardError]

    def __init__(self, results: Sequence[Optional[object]], errors: Dict[int, SwitchyardError]) -> None:
        index, first = min(errors.items())
        count = f"{len(errors)} of {len(results)} inputs have no answer"
        super().__init__(f"{count}; input {index}: {first.message}", code=first.code, retry_after=first.retry_after)
        self.results = results
        self.errors = errors


_CLASSES: Dict[grpc.StatusCode, Type[SwitchyardError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.INTERNAL: InternalError,
}

_CODES: Dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(
    code: Union[int, grpc.StatusCode], message: str, *, pushback: Optional[Pushback] = None, attempts: int = 1
) -> SwitchyardError:
    """The error for a status.

    :param code: The code, or its number; an unknown one is UNKNOWN.
    :param message: What the gateway said.
    :param pushback: When to retry, if the gateway said so.
    :param attempts: How often the call was sent.
    """
    known = _CODES.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else code
    kind = _CLASSES.get(known, SwitchyardError)
    retry_after = pushback.seconds if pushback is not None else None
    if kind is ResourceExhaustedError and retry_after is not None:
        kind = QueueFullError
    return kind(message, code=known, retry_after=retry_after, attempts=attempts)


def from_call(error: grpc.RpcError, attempts: int, *, is_late: bool = False) -> SwitchyardError:
    """The error for a call that gRPC says has failed.

    :param attempts: How often the call was sent.
    :param is_late: Whether the call's deadline is over. A gateway resets a stream with CANCEL then if messages wait for their
        reader, and the frame can arrive before this side's own timer has fired.
    """
    if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return SwitchyardError(str(error), attempts=attempts)
    code = error.code() or grpc.StatusCode.UNKNOWN
    if is_late and code is grpc.StatusCode.CANCELLED:
        return from_status(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed", attempts=attempts)
    pushback = Pushback.read(trailers_of(error.trailing_metadata()))
    return from_status(code, error.details() or code.name, pushback=pushback, attempts=attempts)


def trailers_of(metadata: Optional[object]) -> Trailers:
    """Trailers as pairs: synchronous calls and asynchronous ones have different types."""
    pairs: List[object] = list(metadata) if metadata is not None else []  # type: ignore[call-overload]
    return [(str(pair[0]), pair[1]) for pair in pairs if isinstance(pair, tuple) and len(pair) == 2]
