# SPDX-License-Identifier: Apache-2.0
"""The asynchronous client."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, List, Optional, Sequence, Tuple, Type, Union

import grpc
import grpc.aio

from switchyard import _calls, _rollout
from switchyard._calls import Call, EncodeInput, Result, ScoreInput
from switchyard._client import DEFAULT_RESPONSE_BYTES, DEFAULT_TIMEOUT, _serialized
from switchyard._connection import DEFAULT_ADDRESS, TLS, Connection, Metadata, Token
from switchyard._descriptions import ClusterInfo, ModelInfo, RolloutInfo
from switchyard._enums import HealthStatus
from switchyard._errors import CallCancelledError, InternalError, SwitchyardError, from_call, trailers_of
from switchyard._local import LocalCluster, LocalOptions, Model
from switchyard._measures import EncodeResult, ScoreResult
from switchyard._options import (
    CallOptions,
    EncodeOneOptions,
    EncodeOptions,
    GenerateOptions,
    Input,
    ScoreOneOptions,
    ScoreOptions,
)
from switchyard._results import GeneratedToken, GenerateResult
from switchyard._retry import Attempts, RetryBudget, RetryPolicy

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncSwitchyard:
    """A client of one gateway for asyncio, with the methods of :class:`Switchyard`. It belongs to one event loop.

    >>> async with AsyncSwitchyard("127.0.0.1:7400") as client:                       # doctest: +SKIP
    ...     answers = await asyncio.gather(*(client.generate(text) for text in texts))

    Cancelling a task that waits for a call cancels the call, which frees its place in the gateway. The parameters are those of
    :class:`Switchyard`.
    """

    #: The cluster that :meth:`local` started, or None.
    local_cluster: Optional[LocalCluster] = None

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        tls: Optional[TLS] = None,
        plaintext: bool = False,
        token: Optional[Token] = None,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),
        max_response_bytes: int = DEFAULT_RESPONSE_BYTES,
        metadata: Metadata = (),
    ) -> None:
        self._connection = Connection.make(address, tls, plaintext, token, max_response_bytes, metadata)
        self._credentials = tls.credentials() if tls is not None else None
        self._timeout = timeout
        self._retry = retry
        self._budget = RetryBudget()
        self._max_inputs: Optional[int] = None
        self._is_closed = False
        # Made at the first call, since it belongs to the event loop that runs then.
        self._opened: Optional[grpc.aio.Channel] = None

    @classmethod
    async def local(
        cls,
        model: Model,
        *,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),
        max_response_bytes: int = DEFAULT_RESPONSE_BYTES,
        **options: Unpack[LocalOptions],
    ) -> AsyncSwitchyard:
        """Starts a whole cluster on this machine, and returns a client of it; closing the client ends the cluster.

        :param model: A folder in Hugging Face layout, or a hub id in the local cache.
        :param options: See :class:`LocalOptions`.
        :raises LocalClusterError: If it does not start.
        """
        start = asyncio.ensure_future(asyncio.to_thread(LocalCluster, model, **options))
        try:
            cluster = await asyncio.shield(start)
        except asyncio.CancelledError:
            # The thread goes on, and what it starts must not stay.
            start.add_done_callback(_close_unwanted)
            raise
        client = cls(
            cluster.address, plaintext=True, timeout=timeout, retry=retry, max_response_bytes=max_response_bytes
        )
        client.local_cluster = cluster
        return client

    @property
    def address(self) -> str:
        """Where the gateway listens."""
        return str(self._connection.target)

    async def generate(self, input: Input, **options: Unpack[GenerateOptions]) -> GenerateResult:
        """Generates text and returns it whole; see :meth:`Switchyard.generate`."""
        return await self._run(_calls.generate(input, options))

    def generate_stream(self, input: Input, **options: Unpack[GenerateOptions]) -> AsyncTokenStream:
        """Generates text and returns tokens as they are chosen, for ``async for``; with beams, none before the end."""
        call = _calls.generate_stream(input, options)
        return AsyncTokenStream(self._begin_stream, self._attempts(call), self._budget, call)

    async def encode(self, input: Input, **options: Unpack[EncodeOneOptions]) -> EncodeResult:
        """Returns the encoder's hidden states of an input; see :meth:`Switchyard.encode`."""
        return await self._run(_calls.encode(input, options))

    async def encode_many(
        self,
        inputs: Sequence[Union[Input, EncodeInput]],
        *,
        inputs_per_call: Optional[int] = None,
        **options: Unpack[EncodeOptions],
    ) -> List[EncodeResult]:
        """Encodes several inputs; see :meth:`Switchyard.encode_many`."""
        parts = _calls.slices(inputs, inputs_per_call or await self._inputs_per_call(len(inputs)))
        return _calls.joined([await self._run(_calls.encode_many(part, options)) for part in parts])

    async def score(self, input: Input, target: Input, **options: Unpack[ScoreOneOptions]) -> ScoreResult:
        """Returns the log-probabilities of a given target; see :meth:`Switchyard.score`."""
        return await self._run(_calls.score(input, target, options))

    async def score_many(
        self,
        inputs: Sequence[Union[Tuple[Input, Input], ScoreInput]],
        *,
        inputs_per_call: Optional[int] = None,
        **options: Unpack[ScoreOptions],
    ) -> List[ScoreResult]:
        """Scores several targets; see :meth:`Switchyard.score_many`."""
        parts = _calls.slices(inputs, inputs_per_call or await self._inputs_per_call(len(inputs)))
        return _calls.joined([await self._run(_calls.score_many(part, options)) for part in parts])

    async def model(self, **options: Unpack[CallOptions]) -> ModelInfo:
        """Describes the served model and its limits."""
        return await self._run(_calls.model(options))

    async def cluster(self, **options: Unpack[CallOptions]) -> ClusterInfo:
        """Describes the cluster as the gateway sees it."""
        return await self._run(_calls.cluster(options))

    async def health(self, service: str = "", **options: Unpack[CallOptions]) -> HealthStatus:
        """Asks the standard health service whether a service takes calls; see :meth:`Switchyard.health`."""
        return await self._run(_calls.health(service, options))

    async def rollout(
        self,
        checkpoint: Optional[str] = None,
        *,
        canary: Optional[float] = None,
        promote: bool = False,
        back: bool = False,
        wait: float = 600.0,
        settle: bool = True,
        **options: Unpack[CallOptions],
    ) -> RolloutInfo:
        """Changes the checkpoint that the gateway serves, or says how far that is; see :meth:`Switchyard.rollout`."""
        progress = _rollout.Progress(_rollout.steps(checkpoint, canary, promote, back, wait, settle, options))
        while (step := progress.step) is not None:
            if isinstance(step, float):
                await asyncio.sleep(step)
                progress.done()
                continue
            try:
                answer = await self._run(step)
            except SwitchyardError as error:
                progress.failed(error)
            else:
                progress.done(answer)
        return progress.result

    async def close(self) -> None:
        """Ends the connection and calls in flight, and the cluster that :meth:`local` started. May be called again."""
        self._is_closed = True
        if self._opened is not None:
            await self._opened.close()
        if self.local_cluster is not None:
            await asyncio.to_thread(self.local_cluster.close)

    async def __aenter__(self) -> AsyncSwitchyard:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncSwitchyard at {self.address}{', closed' if self._is_closed else ''}>"

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            target, options = str(self._connection.target), self._connection.options
            if self._credentials is None:
                self._opened = grpc.aio.insecure_channel(target, options)
            else:
                self._opened = grpc.aio.secure_channel(target, self._credentials, options)
        return self._opened

    async def _inputs_per_call(self, count: int) -> int:
        if count <= 1:
            return 1
        if self._max_inputs is None:
            # 0 is a gateway that does not say.
            self._max_inputs = (await self.model()).max_inputs or 1
        return self._max_inputs

    def _attempts(self, call: Call[Any]) -> Attempts:
        if self._is_closed:
            raise RuntimeError("this client is closed")
        timeout = call.options.get("timeout", self._timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        return Attempts(call.options.get("retry", self._retry), self._budget, deadline)

    async def _run(self, call: Call[Result]) -> Result:
        attempts = self._attempts(call)
        method: Any = self._channel.unary_unary(call.method, _serialized, call.parse)
        while True:
            attempts.began()
            metadata = self._connection.call_metadata(attempts.count, call.options.get("metadata", ()))
            try:
                message = await method(
                    call.request, timeout=attempts.remaining(time.monotonic()), metadata=metadata
                )
                break
            except grpc.aio.AioRpcError as error:
                await _sleep_or_raise(error, attempts)
        self._budget.succeeded()
        return call.convert(message)

    def _begin_stream(self, call: Call[Any], attempts: Attempts) -> Any:
        method: Any = self._channel.unary_stream(call.method, _serialized, call.parse)
        metadata = self._connection.call_metadata(attempts.count, call.options.get("metadata", ()))
        return method(call.request, timeout=attempts.remaining(time.monotonic()), metadata=metadata)


def _close_unwanted(start: asyncio.Future[LocalCluster]) -> None:
    if not start.cancelled() and start.exception() is None:
        start.result().close()


async def _sleep_or_raise(error: grpc.aio.AioRpcError, attempts: Attempts) -> None:
    """Waits for the next attempt, or raises what the call failed with."""
    wait = attempts.wait(error.code(), trailers_of(error.trailing_metadata()), time.monotonic())
    if wait is None:
        raise from_call(error, attempts.count, is_late=attempts.is_late(time.monotonic())) from error
    await asyncio.sleep(wait)


def _cancelled() -> CallCancelledError:
    return CallCancelledError("the call was cancelled", code=grpc.StatusCode.CANCELLED)


class AsyncTokenStream(AsyncIterator[GeneratedToken]):
    """The tokens of a generation as they are chosen. To be read once; leaving its ``async with`` block cancels the call."""

    def __init__(
        self,
        begin: Callable[[Call[Any], Attempts], Any],
        attempts: Attempts,
        budget: RetryBudget,
        call: Call[GenerateResult],
    ) -> None:
        self._begin = begin
        self._attempts = attempts
        self._budget = budget
        self._call = call
        self._has_begun = False
        self._result: Optional[GenerateResult] = None
        # Begun at the first read, in the event loop that reads.
        self._events: Any = None
        self._is_cancelled = False

    async def __anext__(self) -> GeneratedToken:
        while True:
            if self._events is None:
                if self._is_cancelled:
                    raise _cancelled()
                self._attempts.began()
                self._events = self._begin(self._call, self._attempts)
            try:
                event = await self._events.read()
            except grpc.aio.AioRpcError as error:
                if self._has_begun or self._is_cancelled:
                    is_late = not self._is_cancelled and self._attempts.is_late(time.monotonic())
                    raise from_call(error, self._attempts.count, is_late=is_late) from error
                await _sleep_or_raise(error, self._attempts)
                self._events = None
                continue
            except asyncio.CancelledError:
                if self._is_cancelled:
                    raise _cancelled() from None
                raise
            if event is grpc.aio.EOF:
                if self._result is None:
                    raise InternalError("the gateway ended the call without its final response")
                raise StopAsyncIteration
            if not self._has_begun:
                self._has_begun = True
                self._budget.succeeded()
            kind = event.WhichOneof("event")
            if kind == "token":
                return GeneratedToken.of(event.token)
            if kind == "response":
                self._result = self._call.convert(event.response)

    async def result(self) -> GenerateResult:
        """Reads to the end, and returns what :meth:`AsyncSwitchyard.generate` would have returned."""
        async for _ in self:
            pass
        if self._result is None:
            raise InternalError("the call has no result")
        return self._result

    def cancel(self) -> None:
        """Ends the call, which frees its place in the gateway; reading on raises :class:`CallCancelledError`."""
        self._is_cancelled = True
        if self._events is not None:
            self._events.cancel()

    async def __aenter__(self) -> AsyncTokenStream:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.cancel()
