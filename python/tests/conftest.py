# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the program, the miniature model and a cluster of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from switchyard import LocalCluster, Switchyard, find_binary

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy" / "models" / "switch-mini"

#: A limit for what should happen soon: it only ends a test that would hang.
PATIENCE = 120.0

PROMPT = "A horse! a horse! my <extra_id_0> for a horse!"

#: Enough tokens for a generation that is still running when a test looks.
LONG = 1000


@pytest.fixture(scope="session")
def binary() -> str:
    """The program; without one no test here means anything, so none is skipped."""
    return find_binary()


@pytest.fixture(scope="session")
def local(binary: str) -> Iterator[LocalCluster]:
    """A cluster that all tests share which do it no harm."""
    with LocalCluster(MODEL) as cluster:
        yield cluster


@pytest.fixture
def client(local: LocalCluster) -> Iterator[Switchyard]:
    """A client of the shared cluster."""
    with Switchyard(local.address, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="session")
def prompts() -> List[Dict[str, Any]]:
    """Prompts with the answers of transformers."""
    read: List[Dict[str, Any]] = json.loads((MODEL / "prompts.json").read_text())
    assert read
    return read


def until(what: Callable[[], bool]) -> None:
    """Waits for a condition."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def processes() -> Iterator[Tuple[int, List[str]]]:
    """The processes of this machine, each with its state, parent, group and session, from /proc."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            # A zombie is gone but for its parent's notice.
            if fields[0] != "Z":
                yield int(entry), fields


def session_members(session: int) -> List[int]:
    """The processes of a session: those of a local cluster have the one of its guard."""
    return [process for process, fields in processes() if int(fields[3]) == session]


def guards() -> List[int]:
    """The guards of this process's local clusters: its children with sessions of their own."""
    own = str(os.getpid())
    return sorted(process for process, fields in processes() if fields[1] == own and fields[3] == str(process))
