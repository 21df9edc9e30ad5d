# SPDX-License-Identifier: Apache-2.0
"""Runs gRPC's interop cases with Python's grpcio against a server and prints the outcome of each as JSON.

usage: interop_client.py ADDRESS [NAME ...]

NAME is a case, an edge or a load; `edges` stands for all edges. Without a name, all cases run.
"""

import collections
import faulthandler
import json
import sys
import threading
import time
import traceback

import grpc
from peer_protos import compile_interop

compile_interop()
from interop import empty_pb2, messages_pb2, test_pb2_grpc  # noqa: E402

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


class Requests:
    """An iterator of requests that are sent one by one, as responses come."""

    def __init__(self):
        self.condition = threading.Condition()
        self.waiting = []
        self.ended = False

    def send(self, request):
        with self.condition:
            self.waiting.append(request)
            self.condition.notify()

    def end(self):
        with self.condition:
            self.ended = True
            self.condition.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.condition:
            while not self.waiting and not self.ended:
                self.condition.wait()
            if self.waiting:
                return self.waiting.pop(0)
            raise StopIteration


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def expect_body(response, size):
    expect(response.payload.body == bytes(size), f"{len(response.payload.body)} bytes instead of {size} zeros")


def expect_status(code, call, details=None):
    try:
        call()
    except grpc.RpcError as error:
        expect(error.code() == code, f"{error.code()} instead of {code}: {error.details()}")
        expect(details is None or error.details() == details, f"the message is {error.details()!r}")
    else:
        raise AssertionError(f"OK instead of {code}")


def empty_unary(stub):
    expect(stub.EmptyCall(empty_pb2.Empty(), timeout=PATIENCE) == empty_pb2.Empty(), "not empty")


def large_unary(stub):
    expect_body(stub.UnaryCall(large(), timeout=PATIENCE), 314159)


def client_streaming(stub):
    requests = (messages_pb2.StreamingInputCallRequest(payload=filling(size)) for size in FILLINGS)
    response = stub.StreamingInputCall(requests, timeout=PATIENCE)
    expect(response.aggregated_payload_size == 74922, f"{response.aggregated_payload_size} bytes were counted")


def server_streaming(stub):
    request = messages_pb2.StreamingOutputCallRequest(
        response_parameters=[messages_pb2.ResponseParameters(size=size) for size in SIZES]
    )
    responses = list(stub.StreamingOutputCall(request, timeout=PATIENCE))
    expect(len(responses) == 4, f"{len(responses)} responses")
    for response, size in zip(responses, SIZES):
        expect_body(response, size)


def ping_pong(stub):
    requests = Requests()
    responses = stub.FullDuplexCall(requests, timeout=PATIENCE)
    for size, fill in zip(SIZES, FILLINGS):
        requests.send(duplex(size, fill))
        expect_body(next(responses), size)
    requests.end()
    expect(list(responses) == [], "more than four responses")


def empty_stream(stub):
    expect(list(stub.FullDuplexCall(iter(()), timeout=PATIENCE)) == [], "a response that nobody asked for")


def half_duplex(stub):
    requests = iter([duplex(size, fill) for size, fill in zip(SIZES, FILLINGS)])
    responses = list(stub.HalfDuplexCall(requests, timeout=PATIENCE))
    expect([len(r.payload.body) for r in responses] == list(SIZES), "wrong responses")


def cancel_after_begin(stub):
    requests = Requests()
    call = stub.StreamingInputCall.future(requests, timeout=PATIENCE)
    call.cancel()
    requests.end()
    expect(call.cancelled(), "not cancelled")
    expect(call.code() == grpc.StatusCode.CANCELLED, f"{call.code()}")


def cancel_after_first_response(stub):
    requests = Requests()
    call = stub.FullDuplexCall(requests, timeout=PATIENCE)
    requests.send(duplex(SIZES[0], FILLINGS[0]))
    expect_body(next(call), SIZES[0])
    call.cancel()
    expect_status(grpc.StatusCode.CANCELLED, lambda: next(call))
    requests.end()


def timeout_on_sleeping_server(stub):
    request = duplex(SIZES[0], FILLINGS[0])
    request.response_parameters[0].interval_us = 5_000_000
    call = stub.FullDuplexCall(iter([request]), timeout=0.001)
    expect_status(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: list(call))


def custom_metadata(stub):
    value, binary = "test_initial_metadata_value", b"\xab\xab\xab"
    metadata = ((INITIAL, value), (TRAILING, binary))

    def check(call):
        expect(dict(call.initial_metadata()).get(INITIAL) == value, f"initial: {call.initial_metadata()}")
        expect(dict(call.trailing_metadata()).get(TRAILING) == binary, f"trailing: {call.trailing_metadata()}")

    _, call = stub.UnaryCall.with_call(large(), metadata=metadata, timeout=PATIENCE)
    check(call)
    call = stub.FullDuplexCall(iter([duplex(314159, 271828)]), metadata=metadata, timeout=PATIENCE)
    expect(len(list(call)) == 1, "not one response")
    check(call)


def status_of(stub, text, streams):
    status = messages_pb2.EchoStatus(code=2, message=text)
    unary = messages_pb2.SimpleRequest(response_status=status)
    expect_status(grpc.StatusCode.UNKNOWN, lambda: stub.UnaryCall(unary, timeout=PATIENCE), text)
    if streams:
        request = messages_pb2.StreamingOutputCallRequest(response_status=status)
        call = stub.FullDuplexCall(iter([request]), timeout=PATIENCE)
        expect_status(grpc.StatusCode.UNKNOWN, lambda: list(call), text)


def status_code_and_message(stub):
    status_of(stub, "test status message", True)


def special_status_message(stub):
    status_of(stub, SPECIAL, False)


def unimplemented_method(stub):
    empty = empty_pb2.Empty()
    expect_status(grpc.StatusCode.UNIMPLEMENTED, lambda: stub.UnimplementedCall(empty, timeout=PATIENCE))


def unimplemented_service(stub):
    unknown, empty = stub.unimplemented, empty_pb2.Empty()
    expect_status(grpc.StatusCode.UNIMPLEMENTED, lambda: unknown.UnimplementedCall(empty, timeout=PATIENCE))


def client_compressed_unary(stub):
    """The library compresses all requests of a call or none; the server says which were compressed."""
    request = large()
    request.expect_compressed.value = True
    expect_status(grpc.StatusCode.INVALID_ARGUMENT, lambda: stub.UnaryCall(request, timeout=PATIENCE))
    response = stub.UnaryCall(request, timeout=PATIENCE, compression=grpc.Compression.Gzip)
    expect_body(response, 314159)
    request.expect_compressed.value = False
    expect_body(stub.UnaryCall(request, timeout=PATIENCE), 314159)


def server_compressed_unary(stub):
    """The library hides which responses were compressed; the client can only see that they are intact."""
    for compressed in (True, False):
        request = large()
        request.response_compressed.value = compressed
        expect_body(stub.UnaryCall(request, timeout=PATIENCE), 314159)


def client_compressed_streaming(stub):
    request = messages_pb2.StreamingInputCallRequest(payload=filling(27182))
    request.expect_compressed.value = True
    call = stub.StreamingInputCall
    expect_status(grpc.StatusCode.INVALID_ARGUMENT, lambda: call(iter([request]), timeout=PATIENCE))
    response = call(iter([request, request]), timeout=PATIENCE, compression=grpc.Compression.Gzip)
    expect(response.aggregated_payload_size == 2 * 27182, f"{response.aggregated_payload_size} bytes were counted")


def server_compressed_streaming(stub):
    request = messages_pb2.StreamingOutputCallRequest()
    request.response_parameters.add(size=31415).compressed.value = True
    request.response_parameters.add(size=92653).compressed.value = False
    sizes = [len(response.payload.body) for response in stub.StreamingOutputCall(request, timeout=PATIENCE)]
    expect(sizes == [31415, 92653], f"{sizes}")


CASES = [
    empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream, half_duplex,
    cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server, custom_metadata,
    status_code_and_message, special_status_message, unimplemented_method, unimplemented_service,
    client_compressed_unary, server_compressed_unary, client_compressed_streaming, server_compressed_streaming,
]


def too_large(stub):
    """A message over the server's limit of 4 MiB."""
    request = messages_pb2.SimpleRequest(payload=filling(5 << 20))
    expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: stub.UnaryCall(request, timeout=PATIENCE))
    large_unary(stub)


def large_metadata(stub):
    """A header list over the server's limit fails only its own call."""
    metadata = (("x", "a" * 32000),)
    call = lambda: stub.EmptyCall(empty_pb2.Empty(), metadata=metadata, timeout=PATIENCE)  # noqa: E731
    expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, call)
    large_unary(stub)


def early_status(stub):
    """The server ends the call while the client is still sending."""

    def requests():
        yield messages_pb2.StreamingOutputCallRequest(response_status=messages_pb2.EchoStatus(code=9, message="early"))
        for _ in range(200):
            yield duplex(1, 60000)

    call = stub.FullDuplexCall(requests(), timeout=PATIENCE)
    expect_status(grpc.StatusCode.FAILED_PRECONDITION, lambda: list(call), "early")
    large_unary(stub)


def slow_reader(stub):
    """More than all windows together, which the client leaves unread for a while."""
    request = messages_pb2.StreamingOutputCallRequest(
        response_parameters=[messages_pb2.ResponseParameters(size=1 << 20)] * 16
    )
    call = stub.StreamingOutputCall(request, timeout=PATIENCE)
    expect_body(next(call), 1 << 20)
    large_unary(stub)
    expect(sum(len(response.payload.body) for response in call) == 15 << 20, "not all of it came")


def binary_metadata(stub):
    values = [b"", b"a", b"a,b", b"\0\xff", bytes(range(256))]
    metadata = tuple((TRAILING, value) for value in values)
    _, call = stub.UnaryCall.with_call(messages_pb2.SimpleRequest(), metadata=metadata, timeout=PATIENCE)
    came = [value for key, value in call.trailing_metadata() if key == TRAILING]
    expect(came == values, f"{came}")


def every_status(stub):
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            status = messages_pb2.EchoStatus(code=code.value[0], message=code.name)
            request = messages_pb2.SimpleRequest(response_status=status)
            expect_status(code, lambda: stub.UnaryCall(request, timeout=PATIENCE), code.name)


def long_status_message(stub):
    """Clients refuse long header lists; the status code must arrive anyway."""
    for text in ("x" * 50000, "\u263a" * 20000):
        status = messages_pb2.EchoStatus(code=3, message=text)
        request = messages_pb2.SimpleRequest(response_status=status)
        expect_status(grpc.StatusCode.INVALID_ARGUMENT, lambda: stub.UnaryCall(request, timeout=PATIENCE))


def message_counts(stub):
    """No message, and two messages, to a method that takes one."""
    for messages in ([], [b"", b""]):
        call = stub.channel.stream_stream("/grpc.testing.TestService/UnaryCall")(iter(messages), timeout=PATIENCE)
        expect_status(grpc.StatusCode.UNIMPLEMENTED, lambda: list(call))


EDGES = [
    too_large, large_metadata, early_status, slow_reader, binary_metadata, every_status, long_status_message,
    message_counts,
]


def parallel(stub, calls=1000):
    """All calls at once; every answer must be intact."""
    futures = [stub.UnaryCall.future(large(), timeout=300) for _ in range(calls)]
    for future in futures:
        expect_body(future.result(), 314159)


def short_deadlines(stub, calls):
    """Calls a server that sleeps longer than any of the deadlines; returns the number of calls by status."""
    request = messages_pb2.StreamingOutputCallRequest()
    request.response_parameters.add(size=9, interval_us=5_000_000)
    started = [stub.StreamingOutputCall(request, timeout=(1 + number % 20) / 1000) for number in range(calls)]
    codes = collections.Counter()
    for call in started:
        try:
            list(call)
            codes["OK"] += 1
        except grpc.RpcError as error:
            codes[error.code().name] += 1
    return codes


def deadlines(stub, calls=2000):
    """Every call must end by its deadline, and a call after them must succeed."""
    codes = short_deadlines(stub, calls)
    expect(codes == {"DEADLINE_EXCEEDED": calls}, f"{dict(codes)}")
    large_unary(stub)


LOADS = [parallel, deadlines]


def main():
    address, *names = sys.argv[1:]
    # A run that hangs says where, and fails.
    faulthandler.dump_traceback_later(8 * PATIENCE, exit=True)
    known = {run.__name__: run for run in CASES + EDGES + LOADS}
    runs = EDGES if names == ["edges"] else [known[name] for name in names] or CASES
    results = {}
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        stub = test_pb2_grpc.TestServiceStub(channel)
        stub.channel = channel
        stub.unimplemented = test_pb2_grpc.UnimplementedServiceStub(channel)
        for run in runs:
            start = time.monotonic()
            try:
                run(stub)
                results[run.__name__] = "pass"
            except Exception as error:
                traceback.print_exc()
                results[run.__name__] = f"{type(error).__name__}: {error}"
            print(f"{run.__name__}: {time.monotonic() - start:.2f} s", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
