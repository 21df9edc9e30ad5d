# SPDX-License-Identifier: Apache-2.0
"""Asks one gateway the same thousands of times, by h2load and by `switchyard batch`, and prints tokens per second as a Markdown table.

    python3 bench_batch.py --switchyard .build/release/switchyard --model deploy/models/switch-mini [--lines 10000] [--rounds 3]

A cluster starts on this machine (`switchyard up`). In each round h2load (Debian: nghttp2-client) asks over gRPC with as many calls at a
time as the batch has lines in flight, and then the batch answers a file of as many lines. Requests are the same bytes but for the ids of
lines, and each answer has as many tokens. The table gives the median round, the least and the most.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from bench_http import GRPC, PROMPT, field, free_port


def varint(number, value):
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([number << 3, *digits, value])


def grpc_body(tokens):
    """A GenerateRequest (text: 1, parameters: 3, drop_policy: 4, priority: 20, queue_timeout_ms: 21), as the batch sends it."""
    parameters = varint(1, tokens) + varint(2, tokens)
    message = field(1, PROMPT.encode()) + field(3, parameters) + field(4, varint(1, 1)) + b"\xa0\x01\x01\xa8\x01\x00"
    return b"\0" + struct.pack(">I", len(message)) + message


def h2load(address, body, at_once, requests):
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        # As the batch: one connection, and streams inside it.
        command = ["h2load", "-n", str(requests), "-c", "1", "-m", str(at_once), "-t", "1", "-d", file.name, *GRPC]
        start = time.monotonic()
        output = subprocess.run(
            [*command, f"http://{address}/switchyard.v1.Gateway/Generate"], check=True, capture_output=True, text=True
        ).stdout
        seconds = time.monotonic() - start
    good = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
    if good != requests:
        sys.exit(f"{good} of {requests} answers have the status 200:\n{output}")
    return seconds


def batch(switchyard, address, lines, out, at_once, tokens):
    start = time.monotonic()
    subprocess.run(
        [switchyard, "batch", lines, out, "--endpoint", address, "--plaintext", "--in-flight", str(at_once), "--overwrite"],
        check=True, capture_output=True,
    )  # fmt: skip
    seconds = time.monotonic() - start
    answers = [json.loads(line) for line in pathlib.Path(out).read_text().splitlines()]
    wrong = [a for a in answers if len(a.get("response", {}).get("generations", [{}])[0].get("tokenIds", [])) != tokens]
    if wrong:
        sys.exit(f"{len(wrong)} of {len(answers)} lines have no {tokens} tokens, such as {wrong[0]}")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchyard", default=".build/release/switchyard")
    parser.add_argument("--model", default="deploy/models/switch-mini")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--in-flight", type=int, default=48, help="the batch's own choice for a gateway of 32 batch slots")
    args = parser.parse_args()
    if not shutil.which("h2load"):
        sys.exit("h2load is not here; install Debian's nghttp2-client")
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [args.switchyard, "up", args.model, "--listen", grpc, "--http-listen", http, "--admin-listen", f"127.0.0.1:{free_port()}"]
    times = {"h2load over gRPC": [], "`switchyard batch`": []}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log, subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    ) as cluster:
        lines = f"{folder}/lines.jsonl"
        request = {"text": PROMPT, "parameters": {"maxNewTokens": args.tokens, "minNewTokens": args.tokens}}
        pathlib.Path(lines).write_text("".join(json.dumps({"id": n} | request) + "\n" for n in range(args.lines)))
        try:
            for attempt in range(300):
                try:
                    urllib.request.urlopen(f"http://{http}/health", timeout=2)
                    break
                except OSError:
                    if cluster.poll() is not None or attempt == 299:
                        log.seek(0)
                        sys.exit("the cluster does not answer:\n" + log.read())
                    time.sleep(0.1)
            h2load(grpc, grpc_body(args.tokens), args.in_flight, min(1000, args.lines))
            for round in range(args.rounds):
                found = {
                    "h2load over gRPC": h2load(grpc, grpc_body(args.tokens), args.in_flight, args.lines),
                    "`switchyard batch`": batch(args.switchyard, grpc, lines, f"{folder}/out", args.in_flight, args.tokens),
                }
                for name, seconds in found.items():
                    times[name].append(args.lines * args.tokens / seconds)
                    print(f"round {round + 1}: {name} {times[name][-1]:.0f} tokens/s", file=sys.stderr, flush=True)
        finally:
            cluster.terminate()
    base = statistics.median(times["h2load over gRPC"])
    print(f"{args.lines} answers of {args.tokens} tokens, {args.in_flight} in flight, {args.rounds} rounds; {os.cpu_count()} processors for all\n")
    print("| | tokens/s | of gRPC's |\n|---|---:|---:|")
    for name, rates in times.items():
        middle = statistics.median(rates)
        share = "" if middle is base else f"{100 * middle / base:.0f} %"
        print(f"| {name} | {middle:.0f} ({min(rates):.0f} to {max(rates):.0f}) | {share} |")


if __name__ == "__main__":
    main()
