# SPDX-License-Identifier: Apache-2.0
"""Asks one gateway for the same answer over gRPC and over HTTP, and prints requests per second as a Markdown table.

    python3 bench_http.py --switchyard .build/release/switchyard --model deploy/models/switch-mini [--requests 2000] [--rounds 3]

A cluster starts on this machine (`switchyard up`). 64 clients of h2load (Debian: nghttp2-client) ask it through each of its ways in turn,
round after round, a request at a time each. The table gives the median round, the least and the most, and the median over that of the
gRPC call of the same kind. Fails if an answer has another status than 200.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

PROMPT = "A horse! a horse! my <extra_id_0> for a horse!"
TOKENS = 40
CLIENTS = 64


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def grpc_body():
    """A GenerateRequest (text: 1, parameters: 3) in a gRPC frame; GenerationParameters has max_new_tokens: 1."""
    message = field(1, PROMPT.encode()) + field(3, bytes([1 << 3, TOKENS]))
    return b"\0" + struct.pack(">I", len(message)) + message


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


OWN = json.dumps({"text": PROMPT, "parameters": {"maxNewTokens": TOKENS}}).encode()
OPENAI = json.dumps({"model": "switch-mini", "prompt": PROMPT, "max_tokens": TOKENS}).encode()
TGI = json.dumps({"inputs": PROMPT, "parameters": {"max_new_tokens": TOKENS}}).encode()
JSON = ["-H", "content-type: application/json"]
GRPC = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
# Name, baseline, whether it is gRPC's listener, path, body, further arguments.
WAYS = [
    ("gRPC `Generate`", None, True, "/switchyard.v1.Gateway/Generate", grpc_body(), GRPC),
    ("`/v1/generate`, HTTP/2", "gRPC `Generate`", False, "/v1/generate", OWN, JSON),
    ("`/v1/generate`, HTTP/1.1", "gRPC `Generate`", False, "/v1/generate", OWN, JSON + ["--h1"]),
    ("`/v1/completions`, HTTP/1.1", "gRPC `Generate`", False, "/v1/completions", OPENAI, JSON + ["--h1"]),
    ("`/generate`, HTTP/1.1", "gRPC `Generate`", False, "/generate", TGI, JSON + ["--h1"]),
    ("gRPC `GenerateStream`", None, True, "/switchyard.v1.Gateway/GenerateStream", grpc_body(), GRPC),
    ("`/v1/generate_stream`, HTTP/1.1", "gRPC `GenerateStream`", False, "/v1/generate_stream", OWN, JSON + ["--h1"]),
]


def ask(address, path, body, arguments, requests):
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["h2load", "-n", str(requests), "-c", str(CLIENTS), "-m", "1", "-t", "1", "-d", file.name]
        output = subprocess.run(command + arguments + [f"http://{address}{path}"], check=True, capture_output=True, text=True).stdout
    good = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
    if good != requests:
        sys.exit(f"{path}: {good} of {requests} answers have the status 200:\n{output}")
    return float(re.search(r"([\d.]+) req/s", output).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchyard", default=".build/release/switchyard")
    parser.add_argument("--model", default="deploy/models/switch-mini")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not shutil.which("h2load"):
        sys.exit("h2load is not here; install Debian's nghttp2-client")
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [args.switchyard, "up", args.model, "--listen", grpc, "--http-listen", http, "--admin-listen", f"127.0.0.1:{free_port()}"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as cluster:
        try:
            for attempt in range(300):
                try:
                    urllib.request.urlopen(f"http://{http}/health", timeout=2)
                    break
                except OSError:
                    if cluster.poll() is not None or attempt == 299:
                        log.seek(0)
                        sys.exit("the cluster does not answer:\n" + log.read().decode(errors="replace"))
                    time.sleep(0.1)
            rates = {way[0]: [] for way in WAYS}
            for round in range(args.rounds + 1):
                for name, _, is_grpc, path, body, arguments in WAYS:
                    rate = ask(grpc if is_grpc else http, path, body, arguments, args.requests)
                    # The first round warms up.
                    if round:
                        rates[name].append(rate)
                    print(f"round {round}: {name} {rate:.0f}", file=sys.stderr, flush=True)
        finally:
            cluster.terminate()
    print(f"{CLIENTS} clients, {args.requests} requests a round, {args.rounds} rounds, up to {TOKENS} new tokens; {os.cpu_count()} processors for all\n")
    print("| | requests/s | over gRPC |\n|---|---:|---:|")
    for name, baseline, *_ in WAYS:
        middle = statistics.median(rates[name])
        share = f"{100 * middle / statistics.median(rates[baseline]):.0f} %" if baseline else ""
        print(f"| {name} | {middle:.0f} ({min(rates[name]):.0f} to {max(rates[name]):.0f}) | {share} |")


if __name__ == "__main__":
    main()
