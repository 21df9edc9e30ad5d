# SPDX-License-Identifier: Apache-2.0
"""Changing the checkpoint of a running cluster: steps, answers, and what is refused."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, Tuple

import pytest

from switchyard import (
    AsyncSwitchyard,
    FailedPreconditionError,
    InvalidArgumentError,
    LocalCluster,
    RolloutPhase,
    Switchyard,
)

from conftest import MODEL, PATIENCE, PROMPT

#: Zeros at the end of the miniature's weights: another checkpoint, with other answers.
ZEROS = 1 << 20


@pytest.fixture(scope="module")
def rolling(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster with a folder of two checkpoints: `plain`, the one that it serves, and `tuned`."""
    folder = tmp_path_factory.mktemp("rollouts")
    tuned = folder / "tuned"
    shutil.copytree(MODEL, tuned)
    weights = tuned / "model.safetensors"
    with open(weights, "r+b") as file:
        file.seek(weights.stat().st_size - ZEROS)
        file.write(bytes(ZEROS))
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    for model, name in ((MODEL, "plain"), (tuned, "tuned")):
        subprocess.run(
            [binary, "shard", model, "--out", checkpoints / name, "--pools", "2"], check=True, capture_output=True
        )
    with LocalCluster(MODEL, pools=2, settings={"checkpoints": checkpoints}) as cluster:
        yield cluster


def answer(client: Switchyard) -> Tuple[str, Tuple[int, ...]]:
    """The fingerprint of the checkpoint that answered, and its answer."""
    result = client.generate(PROMPT, strict=True)
    return result.usage.model_fingerprint, tuple(result.token_ids)


def test_there_and_back(rolling: LocalCluster) -> None:
    with Switchyard(rolling.address, timeout=PATIENCE) as client:
        old = answer(client)
        now = client.rollout()
        assert (now.phase, now.serving.checkpoint, now.serving.fingerprint, now.other) == (RolloutPhase.STEADY, "", old[0], None)

        now = client.rollout("tuned", canary=1.0, wait=PATIENCE)
        assert now.phase is RolloutPhase.CANARY and now.other is not None and now.other.checkpoint == "tuned"
        assert (now.share, now.ready_hosts, now.hosts) == (1.0, 2, 2)
        new = answer(client)
        assert new[0] == now.other.fingerprint != old[0] and new[1] != old[1]
        assert client.rollout("tuned", canary=0.0).share == 0.0
        assert answer(client) == old

        now = client.rollout(back=True, wait=PATIENCE)
        assert now.phase is RolloutPhase.STEADY and now.serving.checkpoint == ""
        assert answer(client) == old

        now = client.rollout("tuned", promote=True, wait=PATIENCE)
        assert (now.phase, now.serving.checkpoint, now.other) == (RolloutPhase.STEADY, "tuned", None)
        assert answer(client) == new
        # What is done already is done.
        assert client.rollout("tuned", promote=True, wait=PATIENCE).serving.checkpoint == "tuned"
        assert client.rollout(back=True, wait=PATIENCE).serving.checkpoint == "tuned"


def test_asyncio(rolling: LocalCluster) -> None:
    async def main() -> None:
        async with AsyncSwitchyard(rolling.address, timeout=PATIENCE) as client:
            before = await client.rollout()
            name = "tuned" if before.serving.checkpoint == "plain" else "plain"
            now = await client.rollout(name, promote=True, wait=PATIENCE)
            assert (now.phase, now.serving.checkpoint) == (RolloutPhase.STEADY, name)
            assert (await client.generate(PROMPT, strict=True)).usage.model_fingerprint == now.serving.fingerprint

    asyncio.run(main())


def test_what_cannot_be_is_refused(rolling: LocalCluster) -> None:
    with Switchyard(rolling.address, timeout=PATIENCE) as client:
        before = answer(client)
        with pytest.raises(FailedPreconditionError, match="absent.*is not there"):
            client.rollout("absent", wait=PATIENCE)
        with pytest.raises(InvalidArgumentError, match="checkpoint's name"):
            client.rollout("../plain", wait=PATIENCE)
        with pytest.raises(ValueError, match="name"):
            client.rollout(promote=True)
        with pytest.raises(ValueError, match="leave out the others"):
            client.rollout("tuned", back=True)
        with pytest.raises(FailedPreconditionError, match="share is 2"):
            client.rollout("tuned" if client.rollout().serving.checkpoint != "tuned" else "plain", canary=2.0)
        assert client.rollout().phase is RolloutPhase.STEADY
        assert answer(client) == before
