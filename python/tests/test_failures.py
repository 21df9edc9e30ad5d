# SPDX-License-Identifier: Apache-2.0
"""Calls that are given up, gateways that die, and queues that are full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import List

import grpc
import pytest

import switchyard
from switchyard import (
    CallCancelledError,
    DeadlineExceededError,
    GenerateResult,
    LocalCluster,
    QueueFullError,
    RetryPolicy,
    Switchyard,
    UnavailableError,
)

from conftest import LONG, MODEL, PATIENCE, PROMPT, session_members, until


def test_deadlines(client: Switchyard) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        client.generate(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG, timeout=0.05)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED and isinstance(caught.value, TimeoutError)
    with pytest.raises(DeadlineExceededError):
        client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG, timeout=0.05).result()
    with pytest.raises(DeadlineExceededError):
        client.generate(PROMPT, timeout=0)
    until(lambda: client.cluster().gateway.running == 0)


def test_a_cancelled_stream_frees_its_place(client: Switchyard) -> None:
    with client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG) as stream:
        assert next(stream).text == "<extra_id_0>"
    with pytest.raises(CallCancelledError):
        stream.result()
    until(lambda: client.cluster().gateway.running == 0)


#: A program that waits for long answers until it is interrupted, and then for its input to end.
INTERRUPTED = f"""
import sys
from switchyard import Switchyard
client = Switchyard(sys.argv[1])
print("ready", flush=True)
try:
    while True:
        client.generate({PROMPT!r}, max_new_tokens={LONG}, min_new_tokens={LONG}, timeout=None)
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.read()
print(client.generate({PROMPT!r}).filled)
"""


def test_an_interrupt_frees_the_place_and_keeps_the_client(client: Switchyard) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(switchyard.__file__).parents[1])}
    command = [sys.executable, "-c", INTERRUPTED, client.address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        until(lambda: client.cluster().gateway.running == 1)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        until(lambda: client.cluster().gateway.running == 0)
        assert process.communicate()[0] == "A horse! a horse! my kingdom for a horse!\n"


def test_a_gateway_that_dies_in_the_middle_of_a_stream(binary: str) -> None:
    with LocalCluster(MODEL, pools=1) as cluster:
        address = cluster.address
        with Switchyard(address, timeout=PATIENCE) as client:
            stream = client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG)
            first = next(stream)
            os.killpg(cluster.process_id, signal.SIGKILL)
            with pytest.raises(UnavailableError) as caught:
                stream.result()
            # A part of the answer has arrived, so the call is not sent again.
            assert first.text == "<extra_id_0>" and caught.value.attempts == 1
            assert isinstance(caught.value, ConnectionError) and caught.value.message
            until(lambda: not session_members(cluster.process_id))

            with pytest.raises(UnavailableError) as caught:
                client.generate(PROMPT, retry=RetryPolicy(max_attempts=3, initial_backoff=0.01))
            assert caught.value.attempts == 3 and "(sent 3 times)" in str(caught.value)

            # It comes back at the same address while a call is waiting for it.
            answers: List[GenerateResult] = []
            patient = RetryPolicy(max_attempts=10_000, initial_backoff=0.05, max_backoff=0.1, is_throttled=False)
            fresh = Switchyard(address, timeout=PATIENCE, retry=patient)
            asking = threading.Thread(target=lambda: answers.append(fresh.generate(PROMPT)))
            asking.start()
            with LocalCluster(MODEL, pools=1, listen=address):
                asking.join()
                assert [answer.filled for answer in answers] == ["A horse! a horse! my kingdom for a horse!"]
                # The older client finds it too.
                assert client.generate(PROMPT, retry=patient).token_ids == answers[0].token_ids
            fresh.close()


def test_a_full_queue(binary: str) -> None:
    settings = {"queue-limit": 1, "batch-slots": 1, "guest-slots": 0, "caller-share": 1}
    with Switchyard.local(MODEL, pools=1, timeout=PATIENCE, settings=settings) as client:
        gateway = client.cluster().gateway
        assert (gateway.queue_limit, gateway.batch_slots) == (1, 1)
        streams = []
        for expected in ((1, 0), (1, 1)):
            streams.append(client.generate_stream(PROMPT, max_new_tokens=LONG, min_new_tokens=LONG))
            until(lambda: (client.cluster().gateway.running, client.cluster().gateway.queued) == expected)
        with pytest.raises(QueueFullError) as caught:
            client.generate(PROMPT, retry=RetryPolicy.NONE)
        assert caught.value.retry_after is not None and caught.value.retry_after > 0
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED and caught.value.attempts == 1
        with pytest.raises(QueueFullError):
            client.generate_stream(PROMPT, retry=RetryPolicy.NONE).result()

        # A call that is told to come back does so until there is room.
        answers: List[GenerateResult] = []
        often = RetryPolicy(max_attempts=10_000)
        ask = [
            lambda: answers.append(client.generate(PROMPT, retry=often)),
            lambda: answers.append(client.generate_stream(PROMPT, retry=often).result()),
        ]
        threads = [threading.Thread(target=target) for target in ask]
        for thread in threads:
            thread.start()
        for stream in streams:
            stream.cancel()
        for thread in threads:
            thread.join()
        assert [answer.filled for answer in answers] == ["A horse! a horse! my kingdom for a horse!"] * 2
