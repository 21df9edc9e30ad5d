# SPDX-License-Identifier: Apache-2.0
"""Asks a running gateway for the generations of a full-shape checkpoint and compares them with transformers' ids.

usage: check_full_shape.py ADDRESS PROTOS_DIR EXPECTED_JSON

EXPECTED_JSON is what Tests/Fixtures/make_full_shape.py writes beside the checkpoint. All prompts are sent one after
another, then all at once. Exits with 1 if any id differs.
"""

import concurrent.futures
import json
import sys
import tempfile
import time

import grpc
from grpcio_client import compile_protos


def main():
    address, protos, path = sys.argv[1:]
    with open(path) as file:
        expected = json.load(file)
    with tempfile.TemporaryDirectory() as out:
        compile_protos(protos, out)
        from switchyard.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2

        with grpc.insecure_channel(address) as channel:
            stub = gateway_pb2_grpc.GatewayStub(channel)

            def ask(prompt):
                request = gateway_pb2.GenerateRequest(input_ids=types_pb2.TokenIds(ids=prompt["input_ids"]))
                request.parameters.max_new_tokens = expected["max_new_tokens"]
                response = stub.Generate(request, timeout=600)
                dropped = sum(d.tokens for d in response.usage.dropped)
                return list(response.generations[0].token_ids) == prompt["token_ids"], dropped == prompt["dropped"]

            same = 0
            prompts = expected["prompts"]
            for name, run in (
                ("one after another", lambda: [ask(p) for p in prompts]),
                ("all at once", lambda: list(concurrent.futures.ThreadPoolExecutor(len(prompts)).map(ask, prompts))),
            ):
                start = time.monotonic()
                results = run()
                seconds = time.monotonic() - start
                same += sum(ids and drops for ids, drops in results)
                print(f"{name}: {sum(r[0] for r in results)} of {len(prompts)} equal in ids, "
                      f"{sum(r[1] for r in results)} in drops, {seconds:.2f} s")
    sys.exit(0 if same == 2 * len(prompts) else 1)


if __name__ == "__main__":
    main()
