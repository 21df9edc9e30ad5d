# SPDX-License-Identifier: Apache-2.0
"""When a failed call is sent again: values in, values out, without a clock or a connection.

After https://github.com/grpc/proposal/blob/master/A6-client-retries.md, with two deviations: RESOURCE_EXHAUSTED is retried
only where the gateway says when, since without that it means an input over a limit; and the retry budget counts only failures
without such an answer, since a gateway that says when to come back has spread its callers already.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Callable, ClassVar, Optional, Sequence, Tuple, Union

import grpc

#: Trailing metadata of a call.
Trailers = Sequence[Tuple[str, Union[str, bytes]]]


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed call is sent again, and how long to wait before.

    Retried are UNAVAILABLE, and RESOURCE_EXHAUSTED where the gateway says when to come back (``grpc-retry-pushback-ms``).
    Its time counts where it gives one; otherwise the wait grows with each attempt. A call is never retried once a part of its
    answer has arrived, and a wait that would pass the call's deadline is not started.
    """

    #: The most times that a call is sent; 1 retries nothing.
    max_attempts: int = 5
    #: Seconds before the second attempt, if the gateway gives no time; up to a fifth more or less, by chance.
    initial_backoff: float = 0.1
    #: The longest wait in seconds, if the gateway gives no time.
    max_backoff: float = 5.0
    #: How much longer each wait is than the one before it.
    backoff_multiplier: float = 2.0
    #: Whether retries pause while most calls of the client fail. Turn it off to wait for a gateway that starts.
    is_throttled: bool = True

    #: Nothing is retried.
    NONE: ClassVar[RetryPolicy]

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}, but must be at least 1")
        for name in ("initial_backoff", "max_backoff"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 0")
        if not self.backoff_multiplier >= 1:
            raise ValueError(f"backoff_multiplier is {self.backoff_multiplier}, but must be at least 1")


RetryPolicy.NONE = RetryPolicy(max_attempts=1)


@dataclass(frozen=True)
class Pushback:
    """What ``grpc-retry-pushback-ms`` says."""

    #: Seconds to wait; None forbids a retry.
    seconds: Optional[float]

    @staticmethod
    def read(trailers: Trailers) -> Optional[Pushback]:
        """Reads it; None where it is missing. A negative or malformed number forbids a retry, as A6 specifies."""
        for key, value in trailers:
            if key.lower() == "grpc-retry-pushback-ms":
                text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
                is_number = text.isascii() and text.isdigit() and len(text) <= 10
                return Pushback(int(text) / 1000 if is_number else None)
        return None


class RetryBudget:
    """Keeps the calls of a client from being retried while most of them fail: A6's throttling."""

    MOST = 10.0
    EARNED = 0.1

    def __init__(self) -> None:
        self._tokens = self.MOST
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Counts a call that was answered."""
        with self._lock:
            self._tokens = min(self.MOST, self._tokens + self.EARNED)

    def failed(self) -> bool:
        """Counts a failure; returns whether there may be a retry."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self.MOST / 2


@dataclass
class Attempts:
    """The attempts of one call."""

    policy: RetryPolicy
    budget: RetryBudget
    #: When the call must have ended, on the clock of the caller; None for never.
    deadline: Optional[float]
    #: A number from 0 to 1 by chance.
    chance: Callable[[], float] = field(default=random.random)
    #: How often the call was sent.
    count: int = 0

    def began(self) -> None:
        """Counts an attempt."""
        self.count += 1

    def remaining(self, now: float) -> Optional[float]:
        """Seconds until the deadline, 0 if it has passed; None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - now)

    def is_late(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def wait(self, code: grpc.StatusCode, trailers: Trailers, now: float) -> Optional[float]:
        """Seconds to wait before the next attempt; None if the call has failed.

        :param code: How the attempt ended.
        :param trailers: The metadata that came with it.
        :param now: The time.
        """
        pushback = Pushback.read(trailers)
        if pushback is not None:
            if code not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
                return None
            seconds = pushback.seconds
        elif code == grpc.StatusCode.UNAVAILABLE and (self.budget.failed() or not self.policy.is_throttled):
            seconds = self._backoff()
        else:
            return None
        if seconds is None or self.count >= self.policy.max_attempts:
            return None
        if self.deadline is not None and now + seconds >= self.deadline:
            return None
        return seconds

    def _backoff(self) -> float:
        try:
            wait = self.policy.initial_backoff * self.policy.backoff_multiplier ** (self.count - 1)
        except OverflowError:
            # After a thousand attempts.
            wait = self.policy.max_backoff
        return min(wait, self.policy.max_backoff) * (0.8 + 0.4 * self.chance())
