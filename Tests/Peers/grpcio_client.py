# SPDX-License-Identifier: Apache-2.0
"""Calls a gateway with Python's grpcio and prints what came back as JSON.

usage: grpcio_client.py ADDRESS PROTOS_DIR COMMAND [TEXT] [--ca FILE [--certificate FILE --key FILE]]
                        [--token-file FILE]

COMMAND is one of generate, stream, describe, health, deadline, unknown, invalid, cancel.
The stubs are generated into a temporary folder from the project's own .proto files.
"""

import argparse
import json
import sys
import tempfile

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc


def compile_protos(protos, out):
    files = ["switchyard/v1/types.proto", "switchyard/v1/gateway.proto"]
    code = protoc.main(["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}", *files])
    if code != 0:
        raise SystemExit(f"protoc failed with {code}")
    sys.path.insert(0, out)


def generation(response):
    return {
        "texts": [g.text for g in response.generations],
        "token_ids": [list(g.token_ids) for g in response.generations],
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
    }


def failure(error):
    return {"code": error.code().name, "message": error.details()}


def read(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def connect(options):
    """A channel: plaintext, or TLS if an authority is given, with the token of a file if one is named."""
    if options.ca is None:
        return grpc.insecure_channel(options.address)
    credentials = grpc.ssl_channel_credentials(read(options.ca), read(options.key), read(options.certificate))
    if options.token_file is not None:
        token = grpc.access_token_call_credentials(read(options.token_file).decode().strip())
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.secure_channel(options.address, credentials)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("protos")
    parser.add_argument("command")
    parser.add_argument("text", nargs="?", default="")
    for name in ["--ca", "--certificate", "--key", "--token-file"]:
        parser.add_argument(name)
    return parser.parse_args()


def main():
    options = arguments()
    protos, command, text = options.protos, options.command, options.text
    with tempfile.TemporaryDirectory() as out:
        compile_protos(protos, out)
        from switchyard.v1 import gateway_pb2, gateway_pb2_grpc

        request = gateway_pb2.GenerateRequest(text=text)
        with connect(options) as channel:
            stub = gateway_pb2_grpc.GatewayStub(channel)
            try:
                if command == "generate":
                    answer = generation(stub.Generate(request, timeout=60))
                elif command == "stream":
                    events = list(stub.GenerateStream(request, timeout=60))
                    answer = {
                        "events": len(events),
                        "tokens": [e.token.token_id for e in events if e.WhichOneof("event") == "token"],
                        "final": generation(events[-1].response),
                    }
                elif command == "describe":
                    model = stub.DescribeModel(gateway_pb2.DescribeModelRequest(), timeout=60)
                    answer = {"experts": model.experts_per_layer, "width": model.d_model}
                elif command == "health":
                    health = health_pb2_grpc.HealthStub(channel)
                    reply = health.Check(health_pb2.HealthCheckRequest(service="switchyard.v1.Gateway"), timeout=60)
                    answer = {"status": health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}
                elif command == "deadline":
                    stub.Generate(request, timeout=0.000001)
                    answer = {}
                elif command == "unknown":
                    call = channel.unary_unary("/switchyard.v1.Gateway/NoSuchMethod")
                    call(b"", timeout=60)
                    answer = {}
                elif command == "invalid":
                    request.parameters.do_sample = True
                    request.parameters.temperature = -1
                    stub.Generate(request, timeout=60)
                    answer = {}
                elif command == "cancel":
                    request.parameters.max_new_tokens = 512
                    request.parameters.min_new_tokens = 512
                    stream = stub.GenerateStream(request, timeout=60)
                    first = next(iter(stream))
                    stream.cancel()
                    answer = {"cancelled": stream.cancelled(), "first": first.token.token_id}
                else:
                    raise SystemExit(f"unknown command {command}")
            except grpc.RpcError as error:
                answer = failure(error)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
