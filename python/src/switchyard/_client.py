# SPDX-License-Identifier: Apache-2.0
"""The synchronous client."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Sequence, Tuple, Type, Union

import grpc

from switchyard import _calls, _rollout
from switchyard._calls import Call, EncodeInput, Result, ScoreInput
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

#: Seconds that a call may take, unless it or its client says otherwise.
DEFAULT_TIMEOUT = 300.0
#: The largest answer in bytes, unless the client says otherwise; an encoding of a long input is large.
DEFAULT_RESPONSE_BYTES = 64 << 20


class Switchyard:
    """A client of one gateway. Threads may share it.

    >>> with Switchyard("127.0.0.1:7400") as client:                                  # doctest: +SKIP
    ...     print(client.generate("my <extra_id_0> for a horse!").filled)
    my kingdom for a horse!

    Every method takes ``timeout``, ``retry`` and ``metadata`` (:class:`CallOptions`), and raises :class:`SwitchyardError`: each
    status code has a subclass.

    :param address: Where the gateway listens: host:port or unix:/path.
    :param tls: An encrypted connection. Without it, only gateways on this machine are called.
    :param plaintext: Allows other machines without encryption, where the network is trusted.
    :param token: What the gateway requires as a bearer token, or a function that returns it.
    :param timeout: Seconds that a call may take, retries included; None is unlimited.
    :param retry: When failed calls are sent again.
    :param max_response_bytes: The largest answer.
    :param metadata: Key-value pairs sent with every call.
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
        self._timeout = timeout
        self._retry = retry
        self._budget = RetryBudget()
        self._max_inputs: Optional[int] = None
        self._is_closed = False
        target, options = str(self._connection.target), self._connection.options
        if tls is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, tls.credentials(), options)

    @classmethod
    def local(
        cls,
        model: Model,
        *,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),
        max_response_bytes: int = DEFAULT_RESPONSE_BYTES,
        **options: Unpack[LocalOptions],
    ) -> Switchyard:
        """Starts a whole cluster on this machine, and returns a client of it; closing the client ends the cluster.

        :param model: A folder in Hugging Face layout, or a hub id in the local cache.
        :param options: See :class:`LocalOptions`.
        :raises LocalClusterError: If it does not start.
        """
        cluster = LocalCluster(model, **options)
        try:
            # --plaintext of `up` is what allows `listen` to leave this machine.
            client = cls(
                cluster.address, plaintext=True, timeout=timeout, retry=retry, max_response_bytes=max_response_bytes
            )
        except BaseException:
            cluster.close()
            raise
        client.local_cluster = cluster
        return client

    @property
    def address(self) -> str:
        """Where the gateway listens."""
        return str(self._connection.target)

    def generate(self, input: Input, **options: Unpack[GenerateOptions]) -> GenerateResult:
        """Generates text and returns it whole.

        :param input: Text, to which the gateway adds the end-of-sequence token, or token ids.
        :param options: How to choose tokens, under the names of transformers, and more: see :class:`GenerateOptions`.
        """
        return self._run(_calls.generate(input, options))

    def generate_stream(self, input: Input, **options: Unpack[GenerateOptions]) -> TokenStream:
        """Generates text and returns tokens as they are chosen; with beams, none before the end.

        :param input: Text or token ids.
        :param options: See :class:`GenerateOptions`.
        """
        call = _calls.generate_stream(input, options)
        return TokenStream(self._begin_stream, self._attempts(call), self._budget, call)

    def encode(self, input: Input, **options: Unpack[EncodeOneOptions]) -> EncodeResult:
        """Returns the encoder's hidden states of an input.

        :param input: Text or token ids.
        :param options: See :class:`EncodeOneOptions`.
        """
        return self._run(_calls.encode(input, options))

    def encode_many(
        self,
        inputs: Sequence[Union[Input, EncodeInput]],
        *,
        inputs_per_call: Optional[int] = None,
        **options: Unpack[EncodeOptions],
    ) -> List[EncodeResult]:
        """Encodes several inputs, as many in a call as the gateway takes; each as it would be alone, bit for bit.

        :param inputs: Texts, token ids, or :class:`EncodeInput` with routes.
        :param inputs_per_call: Fewer inputs in a call, for long ones: an answer has 16 MiB at most.
        :param options: See :class:`EncodeOptions`; the timeout holds for each call.
        :raises PartialError: If some inputs have no answer.
        """
        parts = _calls.slices(inputs, inputs_per_call or self._inputs_per_call(len(inputs)))
        return _calls.joined([self._run(_calls.encode_many(part, options)) for part in parts])

    def score(self, input: Input, target: Input, **options: Unpack[ScoreOneOptions]) -> ScoreResult:
        """Returns the log-probabilities of a given target, token by token.

        :param input: Text or token ids.
        :param target: Text or token ids, without the start token.
        :param options: See :class:`ScoreOneOptions`.
        """
        return self._run(_calls.score(input, target, options))

    def score_many(
        self,
        inputs: Sequence[Union[Tuple[Input, Input], ScoreInput]],
        *,
        inputs_per_call: Optional[int] = None,
        **options: Unpack[ScoreOptions],
    ) -> List[ScoreResult]:
        """Scores several targets, as many in a call as the gateway takes; each as it would be alone, bit for bit.

        :param inputs: Pairs of input and target, or :class:`ScoreInput` with routes.
        :param inputs_per_call: Fewer inputs in a call.
        :param options: See :class:`ScoreOptions`; the timeout holds for each call.
        :raises PartialError: If some inputs have no answer.
        """
        parts = _calls.slices(inputs, inputs_per_call or self._inputs_per_call(len(inputs)))
        return _calls.joined([self._run(_calls.score_many(part, options)) for part in parts])

    def model(self, **options: Unpack[CallOptions]) -> ModelInfo:
        """Describes the served model and its limits."""
        return self._run(_calls.model(options))

    def cluster(self, **options: Unpack[CallOptions]) -> ClusterInfo:
        """Describes the cluster as the gateway sees it."""
        return self._run(_calls.cluster(options))

    def health(self, service: str = "", **options: Unpack[CallOptions]) -> HealthStatus:
        """Asks the standard health service whether a service takes calls.

        :param service: Its full name, such as ``switchyard.v1.Gateway``; empty means the server as a whole.
        :raises NotFoundError: If the server has no such service.
        """
        return self._run(_calls.health(service, options))

    def rollout(
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
        """Changes the checkpoint that the gateway serves while requests run, or says how far that is.

        ``rollout("tuned-2", canary=0.05)`` has it loaded beside the served one and gives it one new request in twenty;
        ``rollout("tuned-2", promote=True)`` gives it all, and has the old one unloaded once nothing runs on it;
        ``rollout(back=True)`` is the way back until then; ``rollout()`` only asks. Gateways take these steps from their own
        machine alone, unless they were started with ``--remote-rollouts``.

        :param checkpoint: The new checkpoint: a folder among the gateway's checkpoints.
        :param canary: Its share of the new requests, 0 to 1; 0.05 if left out.
        :param promote: Gives all new requests to it, and unloads the old one.
        :param back: Gives all new requests to the old one, and unloads the new one.
        :param wait: Seconds for loading, and for requests to end.
        :param settle: Whether the hosts unload what no gateway uses. They refuse while one of their gateways uses it: with several
            gateways, True is for the last one.
        :raises FailedPreconditionError: If it cannot be loaded, or another change is in progress.
        :raises TimeoutError: If ``wait`` is over; the change is as far as ``rollout()`` says.
        """
        progress = _rollout.Progress(_rollout.steps(checkpoint, canary, promote, back, wait, settle, options))
        while (step := progress.step) is not None:
            if isinstance(step, float):
                time.sleep(step)
                progress.done()
                continue
            try:
                answer = self._run(step)
            except SwitchyardError as error:
                progress.failed(error)
            else:
                progress.done(answer)
        return progress.result

    def close(self) -> None:
        """Ends the connection and calls in flight, and the cluster that :meth:`local` started. May be called again."""
        self._is_closed = True
        self._channel.close()
        if self.local_cluster is not None:
            self.local_cluster.close()

    def __enter__(self) -> Switchyard:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Switchyard at {self.address}{', closed' if self._is_closed else ''}>"

    def _inputs_per_call(self, count: int) -> int:
        if count <= 1:
            return 1
        if self._max_inputs is None:
            # 0 is a gateway that does not say.
            self._max_inputs = self.model().max_inputs or 1
        return self._max_inputs

    def _attempts(self, call: Call[Any]) -> Attempts:
        if self._is_closed:
            raise RuntimeError("this client is closed")
        timeout = call.options.get("timeout", self._timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        return Attempts(call.options.get("retry", self._retry), self._budget, deadline)

    def _run(self, call: Call[Result]) -> Result:
        attempts = self._attempts(call)
        method: Any = self._channel.unary_unary(call.method, _serialized, call.parse)
        while True:
            attempts.began()
            metadata = self._connection.call_metadata(attempts.count, call.options.get("metadata", ()))
            pending = method.future(call.request, timeout=attempts.remaining(time.monotonic()), metadata=metadata)
            try:
                message = pending.result()
                break
            except grpc.RpcError as error:
                sleep_or_raise(error, attempts)
            except grpc.FutureCancelledError:
                raise CallCancelledError("the call was cancelled", code=grpc.StatusCode.CANCELLED) from None
            except BaseException:
                # Ctrl-C: the gateway should not go on.
                pending.cancel()
                raise
        self._budget.succeeded()
        return call.convert(message)

    def _begin_stream(self, call: Call[Any], attempts: Attempts) -> Any:
        method: Any = self._channel.unary_stream(call.method, _serialized, call.parse)
        metadata = self._connection.call_metadata(attempts.count, call.options.get("metadata", ()))
        return method(call.request, timeout=attempts.remaining(time.monotonic()), metadata=metadata)


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def sleep_or_raise(error: grpc.RpcError, attempts: Attempts) -> None:
    """Waits for the next attempt, or raises what the call failed with."""
    call: Any = error
    wait = attempts.wait(call.code(), trailers_of(call.trailing_metadata()), time.monotonic())
    if wait is None:
        raise from_call(error, attempts.count, is_late=attempts.is_late(time.monotonic())) from error
    time.sleep(wait)


class TokenStream(Iterator[GeneratedToken]):
    """The tokens of a generation as they are chosen. To be read once; leaving its ``with`` block cancels the call."""

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
        self._is_cancelled = False
        self._result: Optional[GenerateResult] = None
        self._events = self._send()

    def _send(self) -> Any:
        self._attempts.began()
        return self._begin(self._call, self._attempts)

    def __next__(self) -> GeneratedToken:
        while True:
            try:
                event = next(self._events)
            except StopIteration:
                if self._result is None:
                    raise InternalError("the gateway ended the call without its final response") from None
                raise
            except grpc.RpcError as error:
                if self._has_begun or self._is_cancelled:
                    is_late = not self._is_cancelled and self._attempts.is_late(time.monotonic())
                    raise from_call(error, self._attempts.count, is_late=is_late) from error
                sleep_or_raise(error, self._attempts)
                self._events = self._send()
                continue
            if not self._has_begun:
                self._has_begun = True
                self._budget.succeeded()
            kind = event.WhichOneof("event")
            if kind == "token":
                return GeneratedToken.of(event.token)
            if kind == "response":
                self._result = self._call.convert(event.response)

    def result(self) -> GenerateResult:
        """Reads to the end, and returns what :meth:`Switchyard.generate` would have returned."""
        for _ in self:
            pass
        if self._result is None:
            raise InternalError("the call has no result")
        return self._result

    def cancel(self) -> None:
        """Ends the call, which frees its place in the gateway; reading on raises :class:`CallCancelledError`."""
        self._is_cancelled = True
        self._events.cancel()

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.cancel()
