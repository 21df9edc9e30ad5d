# SPDX-License-Identifier: Apache-2.0
"""The asynchronous client: the same answers, many in flight, and calls that are given up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any, Awaitable, Callable, Dict, List

import pytest

from switchyard import (
    AsyncSwitchyard,
    CallCancelledError,
    DeadlineExceededError,
    HealthStatus,
    InvalidArgumentError,
    LocalCluster,
    RetryPolicy,
    Switchyard,
    UnavailableError,
)

from conftest import LONG, MODEL, PATIENCE, PROMPT, guards, session_members
from conftest import until as wait_until


def run(local: LocalCluster, body: Callable[[AsyncSwitchyard], Awaitable[None]]) -> None:
    """Runs a test's body with a client."""

    async def main() -> None:
        async with AsyncSwitchyard(local.address, timeout=PATIENCE) as client:
            await body(client)

    asyncio.run(main())


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await what():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)


def test_the_same_answers(local: LocalCluster, client: Switchyard) -> None:
    async def body(other: AsyncSwitchyard) -> None:
        assert (await other.generate(PROMPT)).token_ids == client.generate(PROMPT).token_ids
        states = (await other.encode(PROMPT)).hidden_states
        assert states.tobytes() == client.encode(PROMPT).hidden_states.tobytes()
        pairs = [(PROMPT, "<extra_id_0> kingdom"), (PROMPT, "<extra_id_0> hat")]
        scores = [result.loss for result in await other.score_many(pairs)]
        assert scores == [result.loss for result in client.score_many(pairs)]
        assert scores[0] == (await other.score(*pairs[0])).loss < scores[1]
        assert len(await other.encode_many([PROMPT] * 70, pooling="mean")) == 70
        assert await other.model() == client.model()
        assert (await other.cluster()).complete
        assert await other.health() is HealthStatus.SERVING
        stream = other.generate_stream(PROMPT)
        texts = [token.text async for token in stream]
        result = await stream.result()
        assert "".join(texts) == result.text == client.generate(PROMPT).text
        with pytest.raises(InvalidArgumentError, match="parameters.temperature"):
            await other.generate(PROMPT, do_sample=True, temperature=-1.0)

    run(local, body)


def test_many_in_flight_keep_apart(local: LocalCluster, prompts: List[Dict[str, Any]]) -> None:
    async def body(client: AsyncSwitchyard) -> None:
        asked = prompts * 10
        # More than wait in the gateway's queue at once: the rest comes back when it is told to.
        often = RetryPolicy(max_attempts=1000)
        answers = await asyncio.gather(*(client.generate(prompt["prompt"], retry=often) for prompt in asked))
        assert [list(answer.token_ids) for answer in answers] == [prompt["token_ids"] for prompt in asked]

    run(local, body)


def test_a_cancelled_task_frees_its_place(local: LocalCluster) -> None:
    async def body(client: AsyncSwitchyard) -> None:
        async def is_running() -> bool:
            return (await client.cluster()).gateway.running > 0

        async def is_idle() -> bool:
            return not await is_running()

        task = asyncio.ensure_future(client.generate(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG))
        await until(is_running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(is_idle)

        stream = client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG)
        async with stream:
            first = await stream.__anext__()
            assert first.text == "<extra_id_0>"
        with pytest.raises(CallCancelledError):
            await stream.result()
        await until(is_idle)

        # Cancelled while it waits for a token.
        reader = asyncio.ensure_future(client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG).result())
        await until(is_running)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(is_idle)

    run(local, body)


def test_a_stream_that_was_cancelled_before_it_began(local: LocalCluster) -> None:
    async def body(client: AsyncSwitchyard) -> None:
        stream = client.generate_stream(PROMPT)
        stream.cancel()
        with pytest.raises(CallCancelledError):
            await stream.result()

    run(local, body)


def test_deadlines(local: LocalCluster) -> None:
    async def body(client: AsyncSwitchyard) -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG, timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(DeadlineExceededError):
            await client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG, timeout=0.05).result()

    run(local, body)


def test_a_gateway_that_dies_in_the_middle_of_a_stream(binary: str) -> None:
    with LocalCluster(MODEL, pools=1) as cluster:

        async def body(client: AsyncSwitchyard) -> None:
            stream = client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG)
            assert (await stream.__anext__()).text == "<extra_id_0>"
            os.killpg(cluster.process_id, signal.SIGKILL)
            with pytest.raises(UnavailableError) as caught:
                await stream.result()
            assert caught.value.attempts == 1
            wait_until(lambda: not session_members(cluster.process_id))
            with pytest.raises(UnavailableError) as caught:
                await client.generate(PROMPT, retry=RetryPolicy(max_attempts=3, initial_backoff=0.01))
            assert caught.value.attempts == 3

        run(cluster, body)


def test_a_start_that_is_given_up_leaves_no_cluster(binary: str) -> None:
    before = guards()

    async def main() -> None:
        start = asyncio.ensure_future(AsyncSwitchyard.local(MODEL))

        async def has_begun() -> bool:
            return guards() != before

        await until(has_begun)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    asyncio.run(main())
    wait_until(lambda: guards() == before)


def test_local(binary: str) -> None:
    async def main() -> None:
        async with await AsyncSwitchyard.local(MODEL, pools=1, timeout=PATIENCE) as client:
            assert (await client.generate(PROMPT)).filled == "A horse! a horse! my kingdom for a horse!"
            cluster = client.local_cluster
        assert cluster is not None and not cluster.is_running
        with pytest.raises(RuntimeError, match="closed"):
            await client.generate(PROMPT)

    asyncio.run(main())
