# SPDX-License-Identifier: Apache-2.0
"""When a call is sent again, as values."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import grpc
import grpc.aio
import pytest
from grpc import StatusCode

from switchyard import (
    CallCancelledError,
    DeadlineExceededError,
    QueueFullError,
    ResourceExhaustedError,
    RetryPolicy,
    UnavailableError,
)
from switchyard._errors import from_call, from_status
from switchyard._retry import Attempts, Pushback, RetryBudget

NAME = "grpc-retry-pushback-ms"


def attempts(policy: RetryPolicy = RetryPolicy(), deadline: Optional[float] = None, count: int = 1) -> Attempts:
    return Attempts(policy, RetryBudget(), deadline, chance=lambda: 0.5, count=count)


@pytest.mark.parametrize(
    ("trailers", "expected"),
    [
        ([], None),
        ([("other", "1")], None),
        ([(NAME, "1500")], Pushback(1.5)),
        ([(NAME, b"20")], Pushback(0.02)),
        ([(NAME, "0")], Pushback(0.0)),
        ([(NAME, "-1")], Pushback(None)),
        ([(NAME, "soon")], Pushback(None)),
        ([(NAME, "")], Pushback(None)),
        ([(NAME, "9" * 11)], Pushback(None)),
        ([(NAME, "\u0663")], Pushback(None)),
    ],
)
def test_pushback(trailers: List[Tuple[str, Any]], expected: Optional[Pushback]) -> None:
    assert Pushback.read(trailers) == expected


@pytest.mark.parametrize(
    ("code", "trailers", "wait"),
    [
        (StatusCode.UNAVAILABLE, [], 0.1),
        (StatusCode.UNAVAILABLE, [(NAME, "300")], 0.3),
        (StatusCode.UNAVAILABLE, [(NAME, "-1")], None),
        (StatusCode.RESOURCE_EXHAUSTED, [], None),
        (StatusCode.RESOURCE_EXHAUSTED, [(NAME, "300")], 0.3),
        (StatusCode.RESOURCE_EXHAUSTED, [(NAME, "no")], None),
        (StatusCode.INVALID_ARGUMENT, [], None),
        (StatusCode.INVALID_ARGUMENT, [(NAME, "300")], None),
        (StatusCode.DEADLINE_EXCEEDED, [], None),
        (StatusCode.CANCELLED, [], None),
        (StatusCode.INTERNAL, [(NAME, "300")], None),
    ],
)
def test_what_is_retried(code: StatusCode, trailers: List[Tuple[str, str]], wait: Optional[float]) -> None:
    assert attempts().wait(code, trailers, now=0) == (pytest.approx(wait) if wait is not None else None)


def test_waits_grow_up_to_a_limit() -> None:
    policy = RetryPolicy(max_attempts=6, initial_backoff=1, max_backoff=5, backoff_multiplier=2)
    waits = [attempts(policy, count=count).wait(StatusCode.UNAVAILABLE, [], now=0) for count in range(1, 7)]
    assert waits == [1, 2, 4, 5, 5, None]
    many = RetryPolicy(max_attempts=100_000)
    assert attempts(many, count=50_000).wait(StatusCode.UNAVAILABLE, [], now=0) == 5
    for chance, expected in ((0.0, 0.8), (1.0, 1.2)):
        one = Attempts(policy, RetryBudget(), None, chance=lambda chance=chance: chance, count=1)  # type: ignore[misc]
        assert one.wait(StatusCode.UNAVAILABLE, [], now=0) == pytest.approx(expected)


def test_no_wait_passes_the_deadline() -> None:
    told = [(NAME, "1000")]
    assert attempts(deadline=11.0).wait(StatusCode.RESOURCE_EXHAUSTED, told, now=9.9) == 1
    assert attempts(deadline=11.0).wait(StatusCode.RESOURCE_EXHAUSTED, told, now=10.0) is None
    assert attempts(deadline=11.0).remaining(10.5) == 0.5
    assert attempts(deadline=11.0).remaining(12.0) == 0
    assert attempts().remaining(12.0) is None


def test_retries_pause_while_most_calls_fail() -> None:
    budget = RetryBudget()
    assert [budget.failed() for _ in range(6)] == [True, True, True, True, False, False]
    for _ in range(20):
        budget.succeeded()
    assert [budget.failed() for _ in range(2)] == [False, False]
    for _ in range(1000):
        budget.succeeded()
    assert budget.failed()
    # A gateway that says when to come back is asked again all the same.
    empty = RetryBudget()
    while empty.failed():
        pass
    one = Attempts(RetryPolicy(), empty, None, count=1)
    assert one.wait(StatusCode.UNAVAILABLE, [], now=0) is None
    assert Attempts(RetryPolicy(is_throttled=False), empty, None, count=1).wait(StatusCode.UNAVAILABLE, [], now=0)
    assert one.wait(StatusCode.RESOURCE_EXHAUSTED, [(NAME, "5")], now=0) == 0.005


@pytest.mark.parametrize(
    "options", [{"max_attempts": 0}, {"initial_backoff": -1}, {"max_backoff": float("nan")}, {"backoff_multiplier": 0.5}]
)
def test_policies_that_make_no_sense(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RetryPolicy(**options)


def test_a_stream_that_is_reset_after_its_deadline() -> None:
    reset = grpc.aio.AioRpcError(StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), "Stream removed")
    assert type(from_call(reset, 1)) is CallCancelledError
    assert type(from_call(reset, 1, is_late=True)) is DeadlineExceededError
    other = grpc.aio.AioRpcError(StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "no")
    assert from_call(other, 2, is_late=True).code is StatusCode.INTERNAL
    assert not attempts().is_late(9) and not attempts(deadline=9.5).is_late(9) and attempts(deadline=9.5).is_late(9.5)


def test_errors_of_statuses() -> None:
    assert type(from_status(StatusCode.RESOURCE_EXHAUSTED, "x")) is ResourceExhaustedError
    full = from_status(8, "x", pushback=Pushback(0.5))
    assert type(full) is QueueFullError and full.retry_after == 0.5
    assert type(from_status(StatusCode.RESOURCE_EXHAUSTED, "x", pushback=Pushback(None))) is ResourceExhaustedError
    assert type(from_status(14, "x")) is UnavailableError
    assert from_status(99, "x").code is StatusCode.UNKNOWN
