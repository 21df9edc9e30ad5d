// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import RPCTransport
import Synchronization
import Testing

@Suite("Calls over loopback", .timeLimit(.minutes(10)))
struct CallTests {
    @Test("unary calls bring bytes back", arguments: [0, 1, 100, 1_019, 1_024, 5_000, 70_000, 1_000_000])
    func unary(size: Int) async throws {
        try await withPair([echo, loopEcho]) { channel in
            for method in [Methods.echo, Methods.loopEcho] {
                let reply = try await channel.unary(method, Payload(pattern(size)), options: .waiting)
                #expect(reply.message == pattern(size))
            }
        }
    }

    @Test("a payload in pieces arrives joined")
    func pieces() async throws {
        try await withPair([loopEcho]) { channel in
            let payload = Payload(segments: [
                pattern(3), ByteBuffer(), pattern(9_000, seed: 1), pattern(40_000, seed: 2),
            ])
            let reply = try await channel.unary(Methods.loopEcho, payload, options: .waiting)
            var expected = ByteBuffer()
            for segment in payload.segments { expected.writeImmutableBuffer(segment) }
            #expect(reply.message == expected)
        }
    }

    @Test("large messages pass the windows both ways", arguments: [false, true])
    func largeMessages(dataPlane: Bool) async throws {
        var limits = dataPlane ? TransportLimits.dataPlane : .defaults
        limits.maxReceiveMessageBytes = 9 << 20
        let configuration = RPCChannelConfiguration.quick { $0.limits = limits }
        try await withPair(server: limits, client: configuration, [loopEcho]) { channel in
            let reply = try await channel.unary(Methods.loopEcho, Payload(pattern(8 << 20)), options: .waiting)
            #expect(reply.message == pattern(8 << 20))
        }
    }

    @Test("a thousand calls at once share one connection")
    func parallel() async throws {
        try await withPair([echo, loopEcho]) { channel in
            _ = try await channel.unary(Methods.echo, Payload(number(0)), options: .waiting)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<1_000 {
                    group.addTask {
                        let method = index % 2 == 0 ? Methods.echo : Methods.loopEcho
                        let message = pattern(index * 7, seed: index)
                        let reply = try await channel.unary(method, Payload(message), options: .waiting)
                        #expect(reply.message == message)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("several connections carry calls")
    func connections() async throws {
        let peers = Mutex<Set<String>>([])
        let method = ServiceMethod.unaryOnEventLoop(Methods.loopEcho) { message, context, responder in
            peers.withLock { _ = $0.insert(context.peer) }
            responder.finish(.success(Payload(message)))
        }
        try await withPair(client: .quick { $0.connections = 3 }, [method]) { channel in
            // Each slot gets its turn, ready or not.
            for _ in 0..<9 { _ = try await channel.unary(Methods.loopEcho, Payload(number(1)), options: .waiting) }
            while peers.withLock({ $0.count }) < 3 {
                _ = try await channel.unary(Methods.loopEcho, Payload(number(1)), options: .waiting)
            }
        }
    }

    @Test("server streaming brings all messages in order", arguments: [0, 1, 3, 5_000] as [UInt32])
    func serverStreaming(messages: UInt32) async throws {
        try await withPair([count]) { channel in
            var received: [ByteBuffer] = []
            for try await message in channel.serverStreaming(
                Methods.count,
                Payload(number(messages)),
                options: .waiting
            ) {
                received.append(message)
            }
            #expect(received == (0..<messages).map { number($0) })
        }
    }

    @Test("client streaming adds up")
    func clientStreaming() async throws {
        try await withPair([sum]) { channel in
            let call = channel.clientStreaming(Methods.sum, options: .waiting)
            for value in 1...100 { try await call.requests.write(Payload(number(UInt32(value)))) }
            call.requests.finish()
            #expect(try await call.response().message == number(5_050))
            // An empty request has an answer as well.
            let empty = channel.clientStreaming(Methods.sum, options: .waiting)
            empty.requests.finish()
            #expect(try await empty.response().message == number(0))
        }
    }

    @Test("bidirectional messages go back and forth")
    func bidirectional() async throws {
        try await withPair([chat]) { channel in
            let call = channel.bidirectional(Methods.chat, options: .waiting)
            var responses = call.responses.makeAsyncIterator()
            for index in 0..<50 {
                try await call.requests.write(Payload(pattern(index * 100, seed: index)))
                #expect(try await responses.next() == pattern(index * 100, seed: index))
            }
            call.requests.finish()
            #expect(try await responses.next() == nil)
            let late = await rpcError { try await call.requests.write(Payload(number(1))) }
            #expect(late != nil)
        }
    }

    @Test("metadata goes both ways, binary values and all")
    func metadata() async throws {
        let method = ServiceMethod.unary(Methods.echo) { message, context in
            var initial = Metadata()
            try initial.add("first", forKey: "x-initial")
            context.setInitial(initial)
            var trailing = Metadata()
            try trailing.add(binary: context.metadata[binary: "x-bytes-bin"].first ?? [], forKey: "x-trailing-bin")
            try trailing.add(context.metadata.first("x-text") ?? "", forKey: "x-trailing")
            context.setTrailing(trailing)
            return Payload(message)
        }
        try await withPair([method]) { channel in
            var options = CallOptions.waiting
            try options.metadata.add(binary: [0, 255, 1], forKey: "x-bytes-bin")
            try options.metadata.add("hello", forKey: "x-text")
            let reply = try await channel.unary(Methods.echo, Payload(number(1)), options: options)
            #expect(reply.initialMetadata.first("x-initial") == "first")
            #expect(reply.trailingMetadata[binary: "x-trailing-bin"] == [[0, 255, 1]])
            #expect(reply.trailingMetadata.first("x-trailing") == "hello")
        }
    }

    @Test("the handler's status arrives with its message and metadata")
    func statuses() async throws {
        let method = ServiceMethod.unary(Methods.fail) { _, _ in
            var metadata = Metadata()
            try metadata.add("yes", forKey: "x-detail")
            throw RPCError(.failedPrecondition, "100 % nötig\n", metadata: metadata)
        }
        struct Odd: Error {}
        let streaming = ServiceMethod.serverStreaming(Methods.count) { _, _, writer in
            try await writer.write(Payload(number(7)))
            throw Odd()
        }
        try await withPair([method, streaming]) { channel in
            let error = await rpcError { try await channel.unary(Methods.fail, Payload(number(1)), options: .waiting) }
            #expect(error?.code == .failedPrecondition)
            #expect(error?.message == "100 % nötig\n")
            #expect(error?.metadata.first("x-detail") == "yes")
            #expect(error?.isNeverProcessed == false)

            var responses = channel.serverStreaming(Methods.count, Payload(number(1))).makeAsyncIterator()
            let first = try await responses.next()
            #expect(first == number(7))
            let thrown = await rpcError { try await responses.next() }
            #expect(thrown?.code == .unknown)
        }
    }

    @Test("an unknown method is UNIMPLEMENTED and the connection stays open")
    func unknownMethod() async throws {
        try await withPair([echo]) { channel in
            let error = await rpcError {
                try await channel.unary(Methods.missing, Payload(number(1)), options: .waiting)
            }
            #expect(error?.code == .unimplemented)
            #expect(error?.message.contains("test.Echo/Missing") == true)
            let reply = try await channel.unary(Methods.echo, Payload(number(1)))
            #expect(reply.message == number(1))
        }
    }

    @Test("a message over a limit is RESOURCE_EXHAUSTED, on either side")
    func messageLimits() async throws {
        var limits = TransportLimits.defaults
        limits.maxReceiveMessageBytes = 10_000
        try await withPair(server: limits, [loopEcho]) { channel in
            let error = await rpcError {
                try await channel.unary(Methods.loopEcho, Payload(pattern(10_001)), options: .waiting)
            }
            #expect(error?.code == .resourceExhausted)
            #expect(error?.message.contains("10000") == true)
            let reply = try await channel.unary(Methods.loopEcho, Payload(pattern(10_000)))
            #expect(reply.message == pattern(10_000))
        }
        try await withPair(client: .quick { $0.limits = limits }, [loopEcho]) { channel in
            let error = await rpcError {
                try await channel.unary(Methods.loopEcho, Payload(pattern(10_001)), options: .waiting)
            }
            #expect(error?.code == .resourceExhausted)
            let reply = try await channel.unary(Methods.loopEcho, Payload(pattern(10_000)))
            #expect(reply.message == pattern(10_000))
        }
    }

    @Test("metadata over the server's limit fails the call but not the connection")
    func headerLimit() async throws {
        var limits = TransportLimits.defaults
        limits.maxHeaderListBytes = 2_000
        try await withPair(server: limits, [echo]) { channel in
            _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
            var options = CallOptions()
            try options.metadata.add(String(repeating: "x", count: 3_000), forKey: "x-large")
            let error = await rpcError { try await channel.unary(Methods.echo, Payload(number(1)), options: options) }
            #expect(error?.code == .internal || error?.code == .resourceExhausted)
            #expect(error?.isNeverProcessed == true)
            _ = try await channel.unary(Methods.echo, Payload(number(1)))
        }
    }
}
