// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import RPCCore
import RPCTransport
import Synchronization
import Testing

@Suite("Retried calls", .timeLimit(.minutes(10)))
struct RetryTests {
    private static let policy = RetryPolicy(
        maxAttempts: 4,
        initialBackoff: .milliseconds(5),
        maxBackoff: .milliseconds(20)
    )

    private static var retrying: RPCChannelConfiguration { .quick { $0.retry = Self.policy } }

    /// Fails a number of times with a status and trailers before it answers; counts its calls and what they carried.
    private final class Flaky: Sendable {
        private let state: Mutex<(calls: Int, previous: [String?])> = Mutex((0, []))
        private let failures: Int
        private let error: RPCError

        init(failures: Int, _ error: RPCError = RPCError(.unavailable, "not yet")) {
            self.failures = failures
            self.error = error
        }

        var calls: Int { self.state.withLock { $0.calls } }
        var previous: [String?] { self.state.withLock { $0.previous } }

        func enter(_ context: ServerContext) throws {
            let number = self.state.withLock { state in
                state.calls += 1
                state.previous.append(context.metadata.first("grpc-previous-rpc-attempts"))
                return state.calls
            }
            if number <= self.failures { throw self.error }
        }
    }

    @Test("reach the server again with their message, and report their number of attempts")
    func unary() async throws {
        let flaky = Flaky(failures: 3)
        let method = ServiceMethod.unary(Methods.echo) { message, context in
            try flaky.enter(context)
            return Payload(message)
        }
        try await withPair(client: Self.retrying, [method]) { channel in
            let reply = try await channel.unary(Methods.echo, Payload(pattern(5_000)), options: .waiting)
            #expect(reply.message == pattern(5_000))
        }
        #expect(flaky.previous == [nil, "1", "2", "3"])
    }

    @Test("give up after the last attempt with its status")
    func exhausted() async throws {
        let flaky = Flaky(failures: 10)
        let method = ServiceMethod.unary(Methods.echo) { message, context in
            try flaky.enter(context)
            return Payload(message)
        }
        try await withPair(client: Self.retrying, [method]) { channel in
            let error = await #expect(throws: RPCError.self) {
                try await channel.unary(Methods.echo, Payload(pattern(1)), options: .waiting)
            }
            #expect(error?.code == .unavailable)
            #expect(error?.message == "not yet")
        }
        #expect(flaky.calls == 4)
    }

    @Test("are not retried against the server's pushback, or for another status")
    func refused() async throws {
        var never = Metadata()
        try never.add("-1", forKey: "grpc-retry-pushback-ms")
        for error in [RPCError(.unavailable, "stay away", metadata: never), RPCError(.internal, "broken")] {
            let flaky = Flaky(failures: 10, error)
            let method = ServiceMethod.unary(Methods.echo) { message, context in
                try flaky.enter(context)
                return Payload(message)
            }
            try await withPair(client: Self.retrying, [method]) { channel in
                _ = await #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(1)), options: .waiting)
                }
            }
            #expect(flaky.calls == 1)
        }
    }

    @Test("send all their messages again, and continue where the caller is")
    func clientStreaming() async throws {
        let flaky = Flaky(failures: 2)
        let method = ServiceMethod.clientStreaming(Methods.sum) { requests, context in
            var total: UInt32 = 0
            var isFirst = true
            for try await message in requests {
                if isFirst { try flaky.enter(context) }
                isFirst = false
                total += message.getInteger(at: message.readerIndex, as: UInt32.self) ?? 0
            }
            return Payload(number(total))
        }
        try await withPair(client: Self.retrying, [method]) { channel in
            let call = channel.clientStreaming(Methods.sum, options: .waiting)
            for value in 1...20 as ClosedRange<UInt32> { try await call.requests.write(Payload(number(value))) }
            call.requests.finish()
            let reply = try await call.response()
            #expect(reply.message == number(210))
        }
        #expect(flaky.calls == 3)
    }

    @Test("are not retried once part of the response has arrived")
    func committed() async throws {
        let flaky = Flaky(failures: 0)
        let method = ServiceMethod.serverStreaming(Methods.count) { _, context, writer in
            try flaky.enter(context)
            try await writer.write(Payload(number(1)))
            throw RPCError(.unavailable, "gone in the middle")
        }
        try await withPair(client: Self.retrying, [method]) { channel in
            var received = 0
            let error = await #expect(throws: RPCError.self) {
                for try await _ in channel.serverStreaming(Methods.count, Payload(number(1)), options: .waiting) {
                    received += 1
                }
            }
            #expect(error?.message == "gone in the middle")
            #expect(received == 1)
        }
        #expect(flaky.calls == 1)
    }

    @Test("end when cancelled between two attempts")
    func cancelled() async throws {
        let flaky = Flaky(failures: 10)
        let (entered, continuation) = AsyncStream.makeStream(of: Void.self)
        let method = ServiceMethod.unary(Methods.echo) { message, context in
            continuation.yield()
            try flaky.enter(context)
            return Payload(message)
        }
        let slow = RPCChannelConfiguration.quick {
            $0.retry = RetryPolicy(maxAttempts: 5, initialBackoff: .seconds(60), maxBackoff: .seconds(60))
        }
        try await withPair(client: slow, [method]) { channel in
            let call = Task { try await channel.unary(Methods.echo, Payload(pattern(1)), options: .waiting) }
            for await _ in entered { break }
            call.cancel()
            let error = await #expect(throws: RPCError.self) { try await call.value }
            #expect(error?.code == .cancelled)
        }
        #expect(flaky.calls == 1)
    }

    @Test("are retried once by themselves when the server refused their stream")
    func refusedStream() async throws {
        let answer: @Sendable (HTTP2Codec, Int32) throws -> Void = { codec, stream in
            let head = [HTTP2HeaderField(":status", "200"), HTTP2HeaderField("content-type", "application/grpc")]
            try codec.submitResponse(streamID: stream, head, endStream: false)
            try codec.submitData(streamID: stream, [ByteBuffer(bytes: [0, 0, 0, 0, 1, 42])])
            try codec.submitTrailers(streamID: stream, [HTTP2HeaderField("grpc-status", "0")])
        }
        try await ScriptedServer.with { codec, stream, index in
            if index == 0 { codec.reset(streamID: stream, code: .refusedStream) } else { try answer(codec, stream) }
        } _: { server in
            try await withChannel(port: server.port) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(pattern(10)), options: .waiting)
                #expect(reply.message == ByteBuffer(bytes: [42]))
            }
            #expect(server.seen.count == 2)
            // Not an attempt that the server has seen.
            let isMarked = server.seen.contains { $0.fields.contains { $0.name == "grpc-previous-rpc-attempts" } }
            #expect(!isMarked)
        }
        try await ScriptedServer.with { codec, stream, _ in
            codec.reset(streamID: stream, code: .refusedStream)
        } _: { server in
            try await withChannel(port: server.port) { channel in
                let error = await #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(10)), options: .waiting)
                }
                #expect(error?.code == .unavailable)
                #expect(error?.isNeverProcessed == true)
            }
            #expect(server.seen.count == 2)
        }
        // A caller that asks not to wait hears of it at once.
        try await ScriptedServer.with { codec, stream, _ in
            codec.reset(streamID: stream, code: .refusedStream)
        } _: { server in
            try await withChannel(port: server.port, .quick { $0.retry = .none }) { channel in
                _ = await #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(10)), options: .waiting)
                }
            }
            #expect(server.seen.count == 1)
        }
    }

    @Test("are retried on the next connection when the server leaves without having taken them")
    func goAway() async throws {
        try await ScriptedServer.with { codec, stream, index in
            guard index > 0 else {
                codec.goAway(lastStreamID: 0)
                return
            }
            let fields = [
                HTTP2HeaderField(":status", "200"), HTTP2HeaderField("content-type", "application/grpc"),
                HTTP2HeaderField("grpc-status", "5"),
            ]
            try codec.submitResponse(streamID: stream, fields, endStream: true)
        } _: { server in
            try await withChannel(port: server.port) { channel in
                let error = await #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(10)), options: .waiting)
                }
                #expect(error?.code == .notFound)
            }
            #expect(server.seen.count == 2)
        }
    }
}
