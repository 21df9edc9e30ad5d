# SPDX-License-Identifier: Apache-2.0
"""Serves grpc.testing.TestService with Python's grpcio; prints its port once it listens.

usage: interop_server.py [PORT]
"""

import sys
import time
from concurrent import futures

import grpc
from peer_protos import compile_interop

compile_interop()
from interop import empty_pb2, messages_pb2, test_pb2_grpc  # noqa: E402

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


def echo(context):
    sent = dict(context.invocation_metadata())
    if INITIAL in sent:
        context.send_initial_metadata(((INITIAL, sent[INITIAL]),))
    if TRAILING in sent:
        context.set_trailing_metadata(((TRAILING, sent[TRAILING]),))


def check(status, context):
    if status.code:
        context.abort(CODES[status.code], status.message)


def filling(size):
    return messages_pb2.Payload(body=bytes(size))


def compress(wanted, context):
    """Compresses what the caller asks for; the server offers gzip to any client that accepts it."""
    if not wanted:
        context.disable_next_message_compression()


def answers(request, context):
    check(request.response_status, context)
    for parameters in request.response_parameters:
        time.sleep(parameters.interval_us / 1e6)
        compress(parameters.compressed.value, context)
        yield messages_pb2.StreamingOutputCallResponse(payload=filling(parameters.size))


class TestService(test_pb2_grpc.TestServiceServicer):
    def EmptyCall(self, request, context):
        echo(context)
        return empty_pb2.Empty()

    def UnaryCall(self, request, context):
        echo(context)
        check(request.response_status, context)
        compress(request.response_compressed.value, context)
        return messages_pb2.SimpleResponse(payload=filling(request.response_size))

    def StreamingOutputCall(self, request, context):
        echo(context)
        yield from answers(request, context)

    def StreamingInputCall(self, requests, context):
        echo(context)
        return messages_pb2.StreamingInputCallResponse(
            aggregated_payload_size=sum(len(request.payload.body) for request in requests)
        )

    def FullDuplexCall(self, requests, context):
        echo(context)
        for request in requests:
            yield from answers(request, context)

    def HalfDuplexCall(self, requests, context):
        echo(context)
        for request in list(requests):
            yield from answers(request, context)

    # UnimplementedCall is left to the base class, which answers UNIMPLEMENTED.


def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), compression=grpc.Compression.Gzip)
    test_pb2_grpc.add_TestServiceServicer_to_server(TestService(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"listening on {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
