# SPDX-License-Identifier: Apache-2.0
"""Clusters of this process: that they start, and that they go, however this process ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

import switchyard
from switchyard import LocalCluster, LocalClusterError, Switchyard, find_binary

from conftest import MODEL, PATIENCE, PROMPT, session_members, until

#: A program with a cluster that is told what to do with it.
PROGRAM = f"""
import os, signal, sys, threading, time
from switchyard import LocalCluster
cluster = LocalCluster({str(MODEL)!r}, pools=1)
print(cluster.process_id, flush=True)
action = sys.stdin.readline().strip()
while action == "hang": time.sleep(0.1)      # a signal just before one long sleep would wait for its end
if action == "raise": raise SystemExit(3)
if action == "exit": os._exit(4)
if action == "fork":
    if os.fork() == 0: sys.exit(0)
    os.wait()
    print(cluster.is_running, flush=True)
"""


def program() -> subprocess.Popen[str]:
    package = str(Path(switchyard.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("ending", ["end", "raise", "exit", "fork", "kill", "terminate", "interrupt", "kill-guard"])
def test_the_cluster_goes_with_its_process(binary: str, ending: str) -> None:
    with program() as process:
        assert process.stdin is not None and process.stdout is not None
        guard = int(process.stdout.readline())
        # The guard, `up`, one expert host and the gateway.
        until(lambda: len(session_members(guard)) >= 4)
        signals = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
        process.stdin.write("hang\n" if ending in signals else ending + "\n")
        process.stdin.flush()
        if ending in signals:
            process.send_signal(signals[ending])
        if ending == "kill-guard":
            os.kill(guard, signal.SIGKILL)
        if ending == "fork":
            assert process.stdout.readline() == "True\n"
        process.wait()
        until(lambda: not session_members(guard))


def test_the_last_reference_is_enough(binary: str) -> None:
    cluster = LocalCluster(MODEL, pools=1)
    guard = cluster.process_id
    del cluster
    gc.collect()
    until(lambda: not session_members(guard))


def test_colors_are_not_in_the_way(binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with LocalCluster(MODEL, pools=1, start_timeout=PATIENCE) as cluster:
        assert not any("\033" in line for line in cluster.lines)


def test_closing(binary: str) -> None:
    lines: List[str] = []
    with Switchyard.local(MODEL, pools=1, replicas=2, log=lines.append) as client:
        cluster = client.local_cluster
        assert cluster is not None and cluster.is_running
        (pool,) = client.cluster().pools
        assert len(pool.replicas) == 2
        assert client.generate(PROMPT).filled == "A horse! a horse! my kingdom for a horse!"
    assert not cluster.is_running and not session_members(cluster.process_id)
    cluster.close()
    assert any(line.startswith("ready on ") for line in lines)
    assert tuple(lines) == cluster.lines
    assert "ended" in repr(cluster)


def test_options(binary: str, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    with Switchyard.local(
        MODEL,
        dtype="float32",
        wire_dtype="bfloat16",
        threads=1,
        host_threads=1,
        shards=shards,
        overrides={"expert_capacity": 32},
        settings={"max-input-tokens": 64},
    ) as client:
        model = client.model()
        assert (model.weight_dtype, model.expert_capacity, model.max_input_tokens) == ("float32", 32, 64)
        assert client.cluster().row_dtype == "bfloat16"
    assert sorted(path.name for path in shards.iterdir() if path.is_dir()) == ["gateway", "pool-0", "pool-1"]


def test_a_model_that_is_not_there(binary: str) -> None:
    with pytest.raises(LocalClusterError, match='ended before it was ready: .*no model "no/such-model"'):
        LocalCluster("no/such-model")


def test_a_setting_that_there_is_not(binary: str) -> None:
    with pytest.raises(LocalClusterError, match="SWITCHYARD_QUEUE_LIMITS"):
        LocalCluster(MODEL, settings={"queue-limits": 3})


def test_a_cluster_that_takes_too_long(binary: str) -> None:
    with pytest.raises(LocalClusterError, match="was not ready within 0.001 s") as caught:
        LocalCluster(MODEL, start_timeout=0.001)
    assert caught.value.code.name == "DEADLINE_EXCEEDED"


def test_options_that_there_are_not() -> None:
    with pytest.raises(TypeError, match="takes no argument pool; it takes pools"):
        LocalCluster(MODEL, pool=2)  # type: ignore[call-arg]


def test_finding_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "switchyard"
    own.write_text("#!/bin/sh\nexit 1\n")
    own.chmod(0o755)
    monkeypatch.setenv("SWITCHYARD_BINARY", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(own)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LocalClusterError, match="no program switchyard on PATH; install Switchyard, or set SWITCHYARD_BINARY"):
        find_binary()
    monkeypatch.setenv("SWITCHYARD_BINARY", str(own))
    assert find_binary() == str(own)
    own.chmod(0o644)
    with pytest.raises(LocalClusterError, match="SWITCHYARD_BINARY is .*, which is no program"):
        find_binary()
    with pytest.raises(LocalClusterError, match="binary is /nowhere/x"):
        find_binary("/nowhere/x")
