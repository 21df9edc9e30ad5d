// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import Testing

@testable import RPCTransport

@Suite("Unfinished messages over loopback", .timeLimit(.minutes(10)))
struct ReceiveBudgetLoopbackTests {
    /// A connection may hold 64 KiB, the server 128 KiB.
    private static let limits = TransportLimits(maxReceiveMessageBytes: 32 << 10, receiveBudgetBytes: 128 << 10)

    /// A client that sends parts of messages, one for each call.
    private struct Sender {
        let peer: RawPeer
        var nextStream: UInt32 = 1

        init(port: Int) async throws {
            self.peer = try await RawPeer.connect(port: port)
            try await self.peer.send(RawPeer.preface)
        }

        /// Opens calls and sends bytes of a message of 32 KiB to each.
        mutating func open(_ count: Int, _ method: Method = Methods.echo, bytes: Int) async throws {
            for _ in 0..<count {
                try await self.peer.send(RawPeer.headers(streamID: self.nextStream, path: method.path))
                let prefix = MessagePrefix(length: 32 << 10).bytes
                let body = prefix + [UInt8](repeating: 7, count: bytes)
                for start in stride(from: 0, to: body.count, by: 16_384) {
                    let piece = Array(body[start..<min(body.count, start + 16_384)])
                    try await self.peer.send(RawPeer.data(piece, streamID: self.nextStream))
                }
                self.nextStream += 2
            }
        }

        /// Waits until calls have ended; which ones, in that order.
        func ended(_ count: Int) async throws -> [UInt32] {
            var streams: [UInt32] = []
            while streams.count < count { streams.append(try await self.peer.waitForFrame(type: 3).streamID) }
            return streams
        }
    }

    private func expectAnswer(_ port: Int, bytes: Int = 30_000) async throws {
        try await withChannel(port: port) { channel in
            let reply = try await channel.unary(Methods.echo, Payload(pattern(bytes)), options: .waiting)
            #expect(reply.message == pattern(bytes))
        }
    }

    @Test("a connection's unfinished messages end, the oldest first, where they hold more than half the budget")
    func connection() async throws {
        try await withServer(limits: Self.limits, [echo]) { server, port in
            var sender = try await Sender(port: port)
            // Twenty parts of 8,000 bytes: eight of them fit into 64 KiB.
            try await sender.open(20, bytes: 8_000)
            #expect(try await sender.ended(12).prefix(3) == [1, 3, 5])
            #expect(server.counts.callsEndedForBudget == 12)
            #expect(server.counts.heldBytes <= 64 << 10 && server.counts.heldBytes > 48 << 10)
            try await self.expectAnswer(port)
            try await sender.peer.close()
            while server.counts.heldBytes > 0 { await Task.yield() }
        }
    }

    @Test("all connections share a budget, and one that sends a whole message loses nothing")
    func server() async throws {
        try await withServer(limits: Self.limits, [echo]) { server, port in
            var senders: [Sender] = []
            for _ in 0..<6 {
                var sender = try await Sender(port: port)
                try await sender.open(7, bytes: 8_000)
                senders.append(sender)
            }
            // 42 parts of 8,000 bytes, of which 16 fit into 128 KiB.
            while server.counts.callsEndedForBudget < 26 { await Task.yield() }
            // A call that another connection ends is counted before its bytes are given back.
            while server.counts.heldBytes > 128 << 10 { await Task.yield() }
            for _ in 0..<4 { try await self.expectAnswer(port) }
            for sender in senders { try await sender.peer.close() }
            while server.counts.heldBytes > 0 { await Task.yield() }
        }
    }

    @Test("whole messages count too, until their request ends or a handler reads them", arguments: [true, false])
    func whole(isStream: Bool) async throws {
        let (began, cancelled) = (Signal(), Signal())
        let deaf = ServiceMethod.bidirectional(Methods.chat) { _, context, _ in
            began.fire()
            let left = Signal()
            context.onCancel {
                cancelled.fire()
                left.fire()
            }
            await left.wait()
        }
        try await withServer(limits: Self.limits, [echo, deaf]) { server, port in
            var sender = try await Sender(port: port)
            try await sender.open(4, isStream ? Methods.chat : Methods.echo, bytes: 32 << 10)
            _ = try await sender.ended(2)
            #expect(server.counts.callsEndedForBudget == 2)
            if isStream { while cancelled.count < 2 { await Task.yield() } }
            try await sender.peer.close()
            while server.counts.heldBytes > 0 { await Task.yield() }
        }
    }

    @Test("a message that grows when it is decompressed counts with what it has become")
    func compressed() async throws {
        let zeros = try #require(Gzip.compressed(Payload(ByteBuffer(repeating: 0, count: 32 << 10))))
        #expect(zeros.readableBytes < 1_000)
        try await withServer(limits: Self.limits, [echo]) { server, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.send(RawPeer.preface)
            for stream in stride(from: UInt32(1), to: 9, by: 2) {
                try await peer.send(
                    RawPeer.headers(streamID: stream, path: Methods.echo.path, extra: [("grpc-encoding", "gzip")])
                )
                let prefix = MessagePrefix(length: zeros.readableBytes, isCompressed: true).bytes
                try await peer.send(RawPeer.data(prefix + Array(zeros.readableBytesView), streamID: stream))
            }
            try await peer.waitForFrame(type: 3)
            #expect(server.counts.callsEndedForBudget > 0)
            try await peer.close()
        }
    }

    @Test("a method's own limit refuses a message by its length, and says so")
    func methodLimit() async throws {
        try await withServer(limits: Self.limits, [echo.requests(upTo: 1_000), loopEcho]) { server, port in
            try await withChannel(port: port, .quick { $0.compression = .gzip(minimumBytes: 1) }) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(pattern(900)), options: .waiting)
                #expect(reply.message == pattern(900))
                let error = await rpcError { try await channel.unary(Methods.echo, Payload(pattern(2_000))) }
                #expect(error?.code == .resourceExhausted)
                #expect(error?.message.hasPrefix("test.Echo/Echo: a compressed message of") == true)
                #expect(error?.message.contains("the limit of 1000 ") == true, "\(error?.message ?? "")")
            }
            try await withChannel(port: port) { channel in
                let error = await rpcError {
                    try await channel.unary(Methods.echo, Payload(pattern(1_001)), options: .waiting)
                }
                #expect(
                    error?.message
                        == "a message of 1001 bytes is over the limit of 1000 of test.Echo/Echo; send less"
                )
                let other = try await channel.unary(Methods.loopEcho, Payload(pattern(2_000)))
                #expect(other.message == pattern(2_000))
            }
            // The prefix alone decides.
            var sender = try await Sender(port: port)
            try await sender.open(1, bytes: 0)
            #expect(try await sender.ended(1) == [1])
            #expect(server.counts.heldBytes == 0)
        }
    }

    @Test("what a refused caller still sends is not kept")
    func refused() async throws {
        let refuse: @Sendable (ServerContext) -> RPCError? = { _ in RPCError(.unauthenticated, "no token") }
        try await withServer(limits: Self.limits, authorize: refuse, [echo]) { server, port in
            let peer = try await RawPeer.connect(port: port)
            // Headers and body in one write, so that the body is there when the call is refused.
            var bytes = RawPeer.preface
            for stream in stride(from: UInt32(1), to: 9, by: 2) {
                bytes.writeImmutableBuffer(RawPeer.headers(streamID: stream, path: Methods.echo.path))
                let part = MessagePrefix(length: 32 << 10).bytes + [UInt8](repeating: 7, count: 16_000)
                bytes.writeImmutableBuffer(RawPeer.data(part, streamID: stream))
            }
            try await peer.send(bytes)
            for _ in 0..<4 { try await peer.waitForFrame(type: 3) }
            #expect(server.counts.heldBytes == 0 && server.counts.callsEndedForBudget == 0)
            try await peer.close()
        }
    }

    @Test("a stream's message that trickles in ends, although a byte comes now and then")
    func trickle() async throws {
        let timing = ConnectionTiming(requestTimeout: .milliseconds(80))
        try await withServer(limits: Self.limits, timing: timing, [chat]) { server, port in
            var sender = try await Sender(port: port)
            try await sender.open(1, Methods.chat, bytes: 1)
            let peer = sender.peer
            let dripping = Task {
                while !Task.isCancelled {
                    try await peer.send(RawPeer.data([7]))
                    try await Task.sleep(for: .milliseconds(10))
                }
            }
            #expect(try await sender.ended(1) == [1])
            dripping.cancel()
            _ = await dripping.result
            #expect(server.counts.calls.contains { $0.code == .deadlineExceeded && $0.count == 1 })
            try await peer.close()
        }
    }

    @Test("a prefix takes no memory for the message that it announces")
    func growth() throws {
        var assembler = MessageAssembler(maxMessageBytes: 64 << 20)
        var memory = MessageAssembler.memory()
        var received: [ByteBuffer] = []
        try assembler.feed(ByteBuffer(bytes: MessagePrefix(length: 10_000_000).bytes), &memory) {
            received.append($0.bytes)
        }
        #expect(assembler.heldBytes == 0)
        for _ in 0..<9 { try assembler.feed(pattern(1_000_000), &memory) { received.append($0.bytes) } }
        #expect(assembler.heldBytes == 9_000_000 && received.isEmpty)
        try assembler.feed(pattern(1_000_000), &memory) { received.append($0.bytes) }
        #expect(received.map(\.readableBytes) == [10_000_000] && assembler.heldBytes == 0)
    }
}
