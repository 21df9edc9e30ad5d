# SPDX-License-Identifier: Apache-2.0
"""Runs gRPC's interop cases with grpclib, whose HTTP/2 is Python's h2, and prints the outcome of each as JSON.

usage: grpclib_interop.py HOST PORT [CASE ...]
"""

import asyncio
import json
import os
import sys
import traceback

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from peer_protos import HERE, INTEROP, compile_protos

compile_protos(
    os.path.join(HERE, "protos"), INTEROP, "--grpclib_python_out",
    f"--plugin=protoc-gen-grpclib_python={os.path.dirname(sys.executable)}/protoc-gen-grpclib_python",
)
from interop import empty_pb2, messages_pb2, test_grpc  # noqa: E402

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"
SIZES = (31415, 9, 2653, 58979)
FILLINGS = (27182, 8, 1828, 45904)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
PATIENCE = 60


def filling(size):
    return messages_pb2.Payload(body=bytes(size))


def large():
    return messages_pb2.SimpleRequest(response_size=314159, payload=filling(271828))


def duplex(size, fill):
    return messages_pb2.StreamingOutputCallRequest(
        response_parameters=[messages_pb2.ResponseParameters(size=size)], payload=filling(fill)
    )


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def expect_body(response, size):
    expect(response.payload.body == bytes(size), f"{len(response.payload.body)} bytes instead of {size} zeros")


async def expect_status(status, call, message=None):
    try:
        await call
    except GRPCError as error:
        expect(error.status == status, f"{error.status} instead of {status}: {error.message}")
        expect(message is None or error.message == message, f"the message is {error.message!r}")
    else:
        raise AssertionError(f"OK instead of {status}")


async def empty_unary(stub):
    expect(await stub.EmptyCall(empty_pb2.Empty(), timeout=PATIENCE) == empty_pb2.Empty(), "not empty")


async def large_unary(stub):
    expect_body(await stub.UnaryCall(large(), timeout=PATIENCE), 314159)


async def client_streaming(stub):
    requests = [messages_pb2.StreamingInputCallRequest(payload=filling(size)) for size in FILLINGS]
    response = await stub.StreamingInputCall(requests, timeout=PATIENCE)
    expect(response.aggregated_payload_size == 74922, f"{response.aggregated_payload_size} bytes were counted")


async def server_streaming(stub):
    request = messages_pb2.StreamingOutputCallRequest(
        response_parameters=[messages_pb2.ResponseParameters(size=size) for size in SIZES]
    )
    responses = await stub.StreamingOutputCall(request, timeout=PATIENCE)
    expect(len(responses) == 4, f"{len(responses)} responses")
    for response, size in zip(responses, SIZES):
        expect_body(response, size)


async def ping_pong(stub):
    async with stub.FullDuplexCall.open(timeout=PATIENCE) as stream:
        for size, fill in zip(SIZES, FILLINGS):
            await stream.send_message(duplex(size, fill))
            expect_body(await stream.recv_message(), size)
        await stream.end()
        expect(await stream.recv_message() is None, "more than four responses")


async def empty_stream(stub):
    async with stub.FullDuplexCall.open(timeout=PATIENCE) as stream:
        await stream.send_request(end=True)
        expect(await stream.recv_message() is None, "a response that nobody asked for")


async def cancel_after_first_response(stub):
    async with stub.FullDuplexCall.open(timeout=PATIENCE) as stream:
        await stream.send_message(duplex(SIZES[0], FILLINGS[0]))
        expect_body(await stream.recv_message(), SIZES[0])
        await stream.cancel()
    # The connection must still work.
    await large_unary(stub)


async def timeout_on_sleeping_server(stub):
    request = duplex(SIZES[0], FILLINGS[0])
    request.response_parameters[0].interval_us = 5_000_000
    try:
        await stub.FullDuplexCall([request], timeout=0.05)
    except (asyncio.TimeoutError, GRPCError) as error:
        expect(getattr(error, "status", Status.DEADLINE_EXCEEDED) == Status.DEADLINE_EXCEEDED, f"{error}")
    else:
        raise AssertionError("OK instead of a time-out")


async def custom_metadata(stub):
    value, binary = "test_initial_metadata_value", b"\xab\xab\xab"
    for open_call, request in (
        (stub.UnaryCall.open, large()),
        (stub.FullDuplexCall.open, duplex(314159, 271828)),
    ):
        async with open_call(timeout=PATIENCE, metadata={INITIAL: value, TRAILING: binary}) as stream:
            await stream.send_message(request, end=True)
            expect_body(await stream.recv_message(), 314159)
            await stream.recv_trailing_metadata()
            expect(stream.initial_metadata.get(INITIAL) == value, f"initial: {stream.initial_metadata}")
            expect(stream.trailing_metadata.get(TRAILING) == binary, f"trailing: {stream.trailing_metadata}")


async def status_of(stub, text, streams):
    status = messages_pb2.EchoStatus(code=2, message=text)
    unary = messages_pb2.SimpleRequest(response_status=status)
    await expect_status(Status.UNKNOWN, stub.UnaryCall(unary, timeout=PATIENCE), text)
    if streams:
        request = messages_pb2.StreamingOutputCallRequest(response_status=status)
        await expect_status(Status.UNKNOWN, stub.FullDuplexCall([request], timeout=PATIENCE), text)


async def status_code_and_message(stub):
    await status_of(stub, "test status message", True)


async def special_status_message(stub):
    await status_of(stub, SPECIAL, False)


async def unimplemented_method(stub):
    await expect_status(Status.UNIMPLEMENTED, stub.UnimplementedCall(empty_pb2.Empty(), timeout=PATIENCE))


async def unimplemented_service(stub):
    call = stub.unimplemented.UnimplementedCall(empty_pb2.Empty(), timeout=PATIENCE)
    await expect_status(Status.UNIMPLEMENTED, call)


CASES = [
    empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream,
    cancel_after_first_response, timeout_on_sleeping_server, custom_metadata, status_code_and_message,
    special_status_message, unimplemented_method, unimplemented_service,
]


async def run(host, port, names):
    channel = Channel(host, int(port))
    stub = test_grpc.TestServiceStub(channel)
    stub.unimplemented = test_grpc.UnimplementedServiceStub(channel)
    results = {}
    try:
        for case in CASES:
            if names and case.__name__ not in names:
                continue
            try:
                await case(stub)
                results[case.__name__] = "pass"
            except Exception as error:
                traceback.print_exc()
                results[case.__name__] = f"{type(error).__name__}: {error}"
    finally:
        channel.close()
    return results


def main():
    host, port, *names = sys.argv[1:]
    print(json.dumps(asyncio.run(run(host, port, names))))


if __name__ == "__main__":
    main()
