# SPDX-License-Identifier: Apache-2.0
"""Runs a program for as long as this one's parent lives: the process between Python and a cluster of its own.

    python _guard.py PARENT GRACE PROGRAM ARGUMENT...

It ends the program when standard input ends, when the process PARENT is no longer its parent, or on SIGTERM: with SIGTERM, GRACE
seconds later with a second one, and 5 seconds after that with SIGKILL. So a cluster goes even where its Python is killed and
cannot say so. It runs as a script, without the package: its interpreter sees no site-packages.
"""

import os
import select
import signal
import subprocess
import sys
import time

#: Seconds between the second SIGTERM and SIGKILL.
LAST_GRACE = 5.0
#: How often to look for the parent where nothing else happens, in seconds.
LOOK = 1.0


def die_with_parent() -> None:
    """On Linux, has the program end if this process is killed: PR_SET_PDEATHSIG of prctl(2)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Ending:
    """What was done to end the program, and when the next step is due."""

    def __init__(self, program: "subprocess.Popen[bytes]", grace: float) -> None:
        self.program = program
        self.waits = [grace, LAST_GRACE]
        self.due = None  # type: float | None

    def begin(self) -> None:
        """Asks the program to end, once."""
        if self.due is None:
            self.step(signal.SIGTERM)

    def look(self) -> None:
        """Takes the next step where it is due."""
        if self.due is not None and time.monotonic() >= self.due:
            self.step(signal.SIGTERM if self.waits else signal.SIGKILL)

    def step(self, number: int) -> None:
        """Sends a signal, and says when the next one is due."""
        self.program.send_signal(number)
        self.due = time.monotonic() + (self.waits.pop(0) if self.waits else LAST_GRACE)


def run(parent: int, grace: float, command: "list[str]") -> int:
    """Runs a program; returns its exit status, 128 and the number where a signal ended it."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    asked = []  # type: list[int]
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: asked.append(number))
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    ending = Ending(program, grace)
    sources = [0, wake]
    while True:
        status = program.poll()
        if status is not None:
            return status if status >= 0 else 128 - status
        readable, _, _ = select.select(sources, [], [], 0.1 if ending.due is not None else LOOK)
        if wake in readable:
            os.read(wake, 4096)
        if 0 in readable and not os.read(0, 4096):
            sources.remove(0)
            ending.begin()
        if asked or os.getppid() != parent:
            ending.begin()
        ending.look()


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
