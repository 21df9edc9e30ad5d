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
import sys

from bench_gateway import GRPC, PROMPT, field, grpc_frame, h2load, row, running_cluster, varint

TOKENS = 40
CLIENTS = 64

# A GenerateRequest (text: 1, parameters: 3); GenerationParameters has max_new_tokens: 1.
MESSAGE = grpc_frame(field(1, PROMPT.encode()) + field(3, varint(1, TOKENS)))
OWN = json.dumps({"text": PROMPT, "parameters": {"maxNewTokens": TOKENS}}).encode()
OPENAI = json.dumps({"model": "switch-mini", "prompt": PROMPT, "max_tokens": TOKENS}).encode()
TGI = json.dumps({"inputs": PROMPT, "parameters": {"max_new_tokens": TOKENS}}).encode()
JSON = ["-H", "content-type: application/json"]
# Name, baseline, whether it is gRPC's listener, path, body, further arguments.
WAYS = [
    ("gRPC `Generate`", None, True, "/switchyard.v1.Gateway/Generate", MESSAGE, GRPC),
    ("`/v1/generate`, HTTP/2", "gRPC `Generate`", False, "/v1/generate", OWN, JSON),
    ("`/v1/generate`, HTTP/1.1", "gRPC `Generate`", False, "/v1/generate", OWN, JSON + ["--h1"]),
    ("`/v1/completions`, HTTP/1.1", "gRPC `Generate`", False, "/v1/completions", OPENAI, JSON + ["--h1"]),
    ("`/generate`, HTTP/1.1", "gRPC `Generate`", False, "/generate", TGI, JSON + ["--h1"]),
    ("gRPC `GenerateStream`", None, True, "/switchyard.v1.Gateway/GenerateStream", MESSAGE, GRPC),
    ("`/v1/generate_stream`, HTTP/1.1", "gRPC `GenerateStream`", False, "/v1/generate_stream", OWN, JSON + ["--h1"]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchyard", default=".build/release/switchyard")
    parser.add_argument("--model", default="deploy/models/switch-mini")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rates = {way[0]: [] for way in WAYS}
    with running_cluster(args.switchyard, args.model) as (grpc, http):
        for round in range(args.rounds + 1):
            # Every other round goes backwards, so that no way has always the same neighbour.
            for name, _, is_grpc, path, body, arguments in WAYS if round % 2 == 0 else reversed(WAYS):
                arguments = ["-c", str(CLIENTS), "-m", "1", *arguments]
                rate, _ = h2load(grpc if is_grpc else http, path, body, arguments, args.requests)
                # The first round warms up.
                if round:
                    rates[name].append(rate)
                print(f"round {round}: {name} {rate:.0f}", file=sys.stderr, flush=True)
    print(f"{CLIENTS} clients, {args.requests} requests a round, {args.rounds} rounds, up to {TOKENS} new tokens; {os.cpu_count()} processors for all\n")
    print("| | requests/s | over gRPC |\n|---|---:|---:|")
    for name, baseline, *_ in WAYS:
        print(row(name, rates[name], rates.get(baseline)))


if __name__ == "__main__":
    main()
