# SPDX-License-Identifier: Apache-2.0
"""Changes of the checkpoint that a gateway serves, as steps that the synchronous and the asynchronous client take alike."""

from __future__ import annotations

import time
from typing import Any, Callable, Generator, Mapping, Optional, Union

import grpc

from switchyard import _options, _requests
from switchyard._calls import Call
from switchyard._descriptions import LoadedCheckpoint, RolloutInfo
from switchyard._enums import RolloutPhase
from switchyard._errors import FailedPreconditionError, from_status
from switchyard.v1 import gateway_pb2

#: Seconds between two questions for how far a gateway is.
_PAUSE = 0.1

#: Yields calls, and seconds to sleep; gets the answer of a call, or its error.
Steps = Generator[Union["Call[RolloutInfo]", float], Optional[RolloutInfo], RolloutInfo]


class _Rollout:
    """One change of a gateway's checkpoint."""

    def __init__(self, wait: float, given: Mapping[str, Any]) -> None:
        self._options = _requests.checked("rollout", _options.CallOptions, given)
        self._wait = wait
        self._end = time.monotonic() + wait

    def ask(
        self, step: int = 0, checkpoint: str = "", share: float = 0
    ) -> Generator[Union[Call[RolloutInfo], float], Optional[RolloutInfo], RolloutInfo]:
        """Takes a step, or only asks."""
        request = gateway_pb2.RolloutRequest(checkpoint=checkpoint, share=share)
        # An enumeration's number, whatever the stubs call it.
        request.step = step  # type: ignore[assignment]
        answer = yield Call(
            method="/switchyard.v1.Gateway/Rollout",
            request=request,
            parse=gateway_pb2.RolloutDescription.FromString,
            convert=RolloutInfo.of,
            options=self._options,
        )
        assert answer is not None
        return answer

    def pause(self, what: str) -> Steps:
        """Waits a little, and asks again."""
        if time.monotonic() >= self._end:
            raise TimeoutError(f"{what} took more than {self._wait} seconds; ask again with rollout(), or go back with rollout(back=True)")
        yield _PAUSE
        return (yield from self.ask())

    def begin(self, checkpoint: str, share: Optional[float], promote: bool) -> Steps:
        """Has the checkpoint loaded beside the served one, with its share."""
        now = yield from self.ask()
        if now.serving.checkpoint == checkpoint:
            if promote and now.phase in (RolloutPhase.STEADY, RolloutPhase.LEAVING):
                return now
            raise _refused(f"{checkpoint} is what the gateway serves already")
        if now.other is not None and now.other.checkpoint != checkpoint:
            raise _refused(f"the gateway is changing to {_name(now.other)}; complete that first with promote=True, or back=True")
        if now.phase is RolloutPhase.LEAVING:
            raise _refused(f"the gateway is going back from {checkpoint}; complete that first with back=True")
        if now.phase is RolloutPhase.STEADY:
            now = yield from self.ask(
                gateway_pb2.ROLLOUT_BEGIN, checkpoint, share if share is not None else 0.0 if promote else 0.05
            )
        while now.phase is RolloutPhase.LOADING:
            now = yield from self.pause(f"loading {checkpoint}")
        if now.other is None or now.other.checkpoint != checkpoint:
            raise _refused(now.detail or f"{checkpoint} was taken back by another step")
        if share is not None and now.phase is RolloutPhase.CANARY and abs(now.share - share) > 1e-5:
            now = yield from self.ask(gateway_pb2.ROLLOUT_SHARE, share=share)
        return now

    def finish(self, settle: bool) -> Steps:
        """Unloads what gets no requests, here and then on the hosts."""
        now = yield from self.ask()
        while now.phase is RolloutPhase.LEAVING:
            if now.other is not None and now.other.running > 0:
                now = yield from self.pause("requests on the checkpoint that leaves")
                continue
            try:
                now = yield from self.ask(gateway_pb2.ROLLOUT_FINISH)
            except FailedPreconditionError:
                # A request came in between.
                now = yield from self.pause("requests on the checkpoint that leaves")
        while settle:
            try:
                return (yield from self.ask(gateway_pb2.ROLLOUT_SETTLE))
            except FailedPreconditionError as error:
                # Hosts refuse for a second after the last use, and as long as another gateway uses the checkpoint.
                now = yield from self.pause(f"unloading on the hosts ({error})")
        return now


def steps(
    checkpoint: Optional[str],
    canary: Optional[float],
    promote: bool,
    back: bool,
    wait: float,
    settle: bool,
    given: Mapping[str, Any],
) -> Steps:
    """The steps of :meth:`Switchyard.rollout`."""
    if checkpoint is None and (promote or canary is not None):
        raise ValueError("promote and canary need the checkpoint's name")
    if back and (checkpoint is not None or promote or canary is not None):
        raise ValueError("back goes back to the checkpoint before; leave out the others")
    rollout = _Rollout(wait, given)
    if back:
        now = yield from rollout.ask()
        if now.phase is not RolloutPhase.STEADY:
            yield from rollout.ask(gateway_pb2.ROLLOUT_BACK)
        return (yield from rollout.finish(settle))
    if checkpoint is None:
        return (yield from rollout.ask())
    now = yield from rollout.begin(checkpoint, canary, promote)
    if not promote:
        return now
    if now.serving.checkpoint != checkpoint:
        yield from rollout.ask(gateway_pb2.ROLLOUT_PROMOTE)
    return (yield from rollout.finish(settle))


class Progress:
    """The steps of a change, one after another, for a client that takes them in its own way."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        #: What comes next: a call to make, or seconds to sleep; None at the end.
        self.step: Union[Call[RolloutInfo], float, None] = None
        self._result: Optional[RolloutInfo] = None
        self.done()

    def done(self, answer: Optional[RolloutInfo] = None) -> None:
        """The step is done, with an answer if it was a call."""
        self._go(lambda: self._steps.send(answer))

    def failed(self, error: Exception) -> None:
        """The step's call failed."""
        self._go(lambda: self._steps.throw(error))

    @property
    def result(self) -> RolloutInfo:
        """How far the change is at the end."""
        assert self._result is not None
        return self._result

    def _go(self, resume: Callable[[], Union[Call[RolloutInfo], float]]) -> None:
        try:
            self.step = resume()
        except StopIteration as end:
            self.step, self._result = None, end.value


def _refused(message: str) -> Exception:
    return from_status(grpc.StatusCode.FAILED_PRECONDITION, message)


def _name(checkpoint: LoadedCheckpoint) -> str:
    return checkpoint.checkpoint or checkpoint.fingerprint
