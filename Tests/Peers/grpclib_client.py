# SPDX-License-Identifier: Apache-2.0
"""Calls a gateway with grpclib, an independent HTTP/2 and gRPC stack, and prints what came back as JSON.

usage: grpclib_client.py HOST PORT PROTOS_DIR COMMAND TEXT

COMMAND is generate or stream.
"""

import asyncio
import json
import os
import sys
import tempfile

from grpc_tools import protoc
from grpclib.client import Channel


def compile_protos(protos, out):
    plugin = os.path.join(os.path.dirname(sys.executable), "protoc-gen-grpclib_python")
    files = ["switchyard/v1/types.proto", "switchyard/v1/gateway.proto"]
    code = protoc.main(
        [
            "protoc",
            f"-I{protos}",
            f"--plugin=protoc-gen-grpclib_python={plugin}",
            f"--python_out={out}",
            f"--grpclib_python_out={out}",
            *files,
        ]
    )
    if code != 0:
        raise SystemExit(f"protoc failed with {code}")
    sys.path.insert(0, out)


async def call(host, port, command, text):
    from switchyard.v1 import gateway_grpc, gateway_pb2

    channel = Channel(host, int(port))
    try:
        stub = gateway_grpc.GatewayStub(channel)
        request = gateway_pb2.GenerateRequest(text=text)
        if command == "generate":
            response = await stub.Generate(request, timeout=60)
        else:
            events = await stub.GenerateStream(request, timeout=60)
            response = events[-1].response
        return {
            "texts": [g.text for g in response.generations],
            "token_ids": [list(g.token_ids) for g in response.generations],
        }
    finally:
        channel.close()


def main():
    host, port, protos, command, text = sys.argv[1:]
    with tempfile.TemporaryDirectory() as out:
        compile_protos(protos, out)
        print(json.dumps(asyncio.run(call(host, port, command, text))))


if __name__ == "__main__":
    main()
