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
import subprocess
import sys
import tempfile
import time

from bench_gateway import GRPC, PROMPT, field, grpc_frame, h2load, row, running_cluster, varint

OVER_GRPC = "h2load over gRPC"
BATCH = "`switchyard batch`"


def message(tokens):
    """A GenerateRequest (text: 1, parameters: 3, drop_policy: 4, priority: 20, queue_timeout_ms: 21), as the batch sends it."""
    parameters = varint(1, tokens) + varint(2, tokens)
    return grpc_frame(field(1, PROMPT.encode()) + field(3, parameters) + field(4, varint(1, 1)) + b"\xa0\x01\x01\xa8\x01\x00")


def over_grpc(address, tokens, at_once, requests):
    # As the batch: one connection, and streams inside it.
    arguments = ["-c", "1", "-m", str(at_once), *GRPC]
    return h2load(address, "/switchyard.v1.Gateway/Generate", message(tokens), arguments, requests)[1]


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
    rates = {OVER_GRPC: [], BATCH: []}
    with tempfile.TemporaryDirectory() as folder, running_cluster(args.switchyard, args.model) as (grpc, _):
        lines = f"{folder}/lines.jsonl"
        request = {"text": PROMPT, "parameters": {"maxNewTokens": args.tokens, "minNewTokens": args.tokens}}
        pathlib.Path(lines).write_text("".join(json.dumps({"id": n} | request) + "\n" for n in range(args.lines)))
        over_grpc(grpc, args.tokens, args.in_flight, min(1000, args.lines))
        for round in range(args.rounds):
            found = {
                OVER_GRPC: over_grpc(grpc, args.tokens, args.in_flight, args.lines),
                BATCH: batch(args.switchyard, grpc, lines, f"{folder}/out", args.in_flight, args.tokens),
            }
            for name, seconds in found.items():
                rates[name].append(args.lines * args.tokens / seconds)
                print(f"round {round + 1}: {name} {rates[name][-1]:.0f} tokens/s", file=sys.stderr, flush=True)
    print(f"{args.lines} answers of {args.tokens} tokens, {args.in_flight} in flight, {args.rounds} rounds; {os.cpu_count()} processors for all\n")
    print("| | tokens/s | of gRPC's |\n|---|---:|---:|")
    print(row(OVER_GRPC, rates[OVER_GRPC]))
    print(row(BATCH, rates[BATCH], rates[OVER_GRPC]))


if __name__ == "__main__":
    main()
