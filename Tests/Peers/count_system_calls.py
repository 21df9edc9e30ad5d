# SPDX-License-Identifier: Apache-2.0
"""Counts the system calls that each process of a cluster makes for one greedy decoder step at batch 1.

    python count_system_calls.py SWITCHYARD MODEL [--steps N] [--pools N] [--dtype TYPE] [up's options]

Starts `switchyard up`, warms it up, then counts with strace what gateway and hosts call while one request decodes N tokens,
and again while it decodes one: the difference, divided by N - 1, is a step's. Counts are of work, not of time, but threads
that wait for each other sleep more often where the processors are busy, and strace makes system calls slow.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

CALLS = ["futex", "epoll_wait", "epoll_ctl", "read", "write", "timerfd_settime", "sched_yield"]
ALIASES = {"epoll_pwait": "epoll_wait", "epoll_pwait2": "epoll_wait", "readv": "read", "recvfrom": "read", "writev": "write", "sendmsg": "write",
           "sendto": "write"}


def counts(path: str) -> dict:
    """The calls in one summary of strace, by name."""
    result: dict = {}
    with open(path) as file:
        for line in file:
            match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
            if match and match[2] != "total":
                name = ALIASES.get(match[2], match[2])
                result[name] = result.get(name, 0) + int(match[1])
    return result


def children(parent: int) -> list:
    """The process ids of a process's children, which belong to the threads that started them."""
    found = []
    for thread in os.listdir(f"/proc/{parent}/task"):
        with open(f"/proc/{parent}/task/{thread}/children") as file:
            found += [int(word) for word in file.read().split()]
    return found


def command(pid: int) -> list:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return [part.decode() for part in file.read().split(b"\0") if part]


def ask(switchyard: str, address: str, steps: int) -> None:
    subprocess.run(
        [switchyard, "generate", "--endpoint", address, "--skip-scores", "--min-new-tokens", str(steps),
         "--max-new-tokens", str(steps), "A horse! a horse! my <extra_id_0> for a horse!"],
        check=True, stdout=subprocess.DEVNULL,
    )


def counted(processes: dict, work) -> dict:
    """What the processes call while some work is done, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        traces = {}
        for name, pid in processes.items():
            file = f"{folder}/{name.replace('/', '-')}"
            traces[name] = (file, subprocess.Popen(["strace", "-f", "-c", "-o", file, "-p", str(pid)],
                                                   stderr=subprocess.PIPE, text=True))
        for _, trace in traces.values():
            # "strace: Process 123 attached with 9 threads"
            trace.stderr.readline()
        time.sleep(0.5)
        work()
        for _, trace in traces.values():
            trace.send_signal(signal.SIGINT)
            trace.wait()
        return {name: counts(file) for name, (file, _) in traces.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("switchyard")
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pools", type=int, default=2)
    parser.add_argument("--dtype", default="int8")
    options, more = parser.parse_known_args()
    up = subprocess.Popen(
        [options.switchyard, "up", options.model, "--pools", str(options.pools), "--dtype", options.dtype,
         "--listen", "127.0.0.1:0", *more],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        address = None
        for line in up.stdout:
            found = re.search(r"127\.0\.0\.1:\d+", line)
            if found and address is None and "gateway" in line:
                address = found[0]
            if address:
                break
        if address is None:
            sys.exit("the cluster did not start")
        processes = {}
        deadline = time.monotonic() + 60
        while len(processes) < options.pools + 1 and time.monotonic() < deadline:
            for pid in children(up.pid):
                words = command(pid)
                if "gateway" in words:
                    processes["gateway"] = pid
                elif "expert-host" in words:
                    processes[os.path.basename(words[words.index("--shard") + 1])] = pid
            time.sleep(0.2)
        if len(processes) < options.pools + 1:
            sys.exit(f"of {options.pools + 1} processes only {sorted(processes)} were found")
        ask(options.switchyard, address, 8)
        one = counted(processes, lambda: ask(options.switchyard, address, 1))
        many = counted(processes, lambda: ask(options.switchyard, address, options.steps))
        print("| process | " + " | ".join(CALLS) + " |")
        print("|---|" + "---:|" * len(CALLS))
        for name in sorted(processes):
            row = [(many[name].get(call, 0) - one[name].get(call, 0)) / (options.steps - 1) for call in CALLS]
            print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    finally:
        up.send_signal(signal.SIGINT)
        up.wait()


if __name__ == "__main__":
    main()
