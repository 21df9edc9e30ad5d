# SPDX-License-Identifier: Apache-2.0
"""Measures hivemind's remote Switch layer: experts of 768-3072-768 on two servers of this machine.

    python bench_hivemind.py [--threads 1] [--calls 30] [--runs 5] [--turns]

Two server processes hold half of the experts each and are found through a DHT on loopback; the layer's gate and its mixture
run in this process, as in `switchyard-bench experts`. A value is the p50 of the calls of one run, in milliseconds. Prints
one JSON object per line; with --turns it measures when `switchyard-bench compare` asks.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time

import turns

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HIVEMIND_LOGLEVEL", "WARNING")
PREFIX = "switch."


def load():
    try:
        import hivemind
        import torch
        from hivemind.moe.server.layers import name_to_block
    except ImportError as error:
        turns.skip(f"{error}; install hivemind==1.1.12, in an environment of its own")
    return hivemind, torch, name_to_block


def expert_class():
    """A Switch expert, wo(relu(wi x)), registered under the name that servers use."""
    _, torch, name_to_block = load()
    from hivemind.moe.server.layers.custom_experts import register_expert_class

    if "switch_ffn" in name_to_block:
        return

    @register_expert_class("switch_ffn", lambda batch_size, width: torch.empty((batch_size, width)))
    class SwitchFeedForward(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            inner = int(os.environ.get("SWITCH_INNER", "3072"))
            self.wi = torch.nn.Linear(width, inner, bias=False)
            self.wo = torch.nn.Linear(inner, width, bias=False)

        def forward(self, x):
            return self.wo(torch.relu(self.wi(x)))


def serve(arguments) -> None:
    """One server: prints its addresses, then serves until its input ends."""
    hivemind, torch, _ = load()
    from hivemind.moe import Server

    torch.set_num_threads(arguments.threads)
    expert_class()
    server = Server.create(
        expert_uids=[f"{PREFIX}{index}" for index in range(arguments.first, arguments.first + arguments.count)],
        expert_cls="switch_ffn", hidden_dim=arguments.width, device="cpu", num_handlers=4, max_batch_size=4096,
        initial_peers=arguments.peers, start=True, optim_cls=None,
        host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_relay=False, use_auto_relay=False,
    )
    print("addresses " + " ".join(str(address) for address in server.dht.get_visible_maddrs()), flush=True)
    sys.stdin.read()
    # The server's helper processes do not always exit with it.
    os.killpg(0, signal.SIGKILL)


class Servers:
    """Two server processes, which exit when this one does."""

    def __init__(self, arguments):
        self.processes, self.peers = [], []
        half = arguments.experts // 2
        for index in range(2):
            command = [
                sys.executable, __file__, "--serve", "--first", str(index * half), "--count", str(half),
                "--width", str(arguments.width), "--threads", str(arguments.threads), "--peers", *self.peers,
            ]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            self.processes.append(process)
            for line in process.stdout:
                if line.startswith("addresses "):
                    self.peers += line.split()[1:]
                    break
            else:
                raise RuntimeError("a server exited before it listened")

    def stop(self) -> None:
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of each server")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--turns", action="store_true", help="measure on request from standard input")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peers", nargs="*", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hivemind, torch, _ = load()
    if arguments.serve:
        return serve(arguments)

    from hivemind.moe import RemoteSwitchMixtureOfExperts

    torch.set_num_threads(2 * arguments.threads)
    torch.manual_seed(0)
    servers = Servers(arguments)
    try:
        dht = hivemind.DHT(
            initial_peers=servers.peers, host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_relay=False, use_auto_relay=False,
            start=True,
        )
        # No grid dropout and no jitter: those belong to training.
        layer = RemoteSwitchMixtureOfExperts(
            in_features=arguments.width, grid_size=(arguments.experts,), dht=dht, uid_prefix=PREFIX, grid_dropout=1.0,
            jitter_eps=0.0, k_best=1, k_min=1, forward_timeout=60, allow_zero_outputs=False,
        ).eval()

        def call(tokens: int) -> float:
            x = torch.randn(tokens, arguments.width)
            start = time.perf_counter()
            with torch.inference_mode():
                layer(x)
            return time.perf_counter() - start

        def measure(work: str, size: int) -> dict:
            times = sorted(1000 * call(size) for _ in range(arguments.calls))
            last = times[min(len(times) - 1, int(0.99 * len(times)))]
            return {"value": statistics.median(times), "unit": "ms", "details": {"p99_ms": last}}

        # Retry until both servers have announced their experts.
        end = time.monotonic() + 60
        while True:
            try:
                call(64)
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        versions = f"hivemind {hivemind.__version__}, torch {torch.__version__}, {arguments.threads} threads a server"
        cases = [("remote layer", tokens) for tokens in arguments.tokens]
        if arguments.turns:
            turns.serve(versions, cases, measure)
        else:
            turns.run_alone(versions, cases, measure, arguments.runs)
    finally:
        servers.stop()
    dht.shutdown()
    # Its event loops would complain when the interpreter exits.
    os._exit(0)


if __name__ == "__main__":
    main()
