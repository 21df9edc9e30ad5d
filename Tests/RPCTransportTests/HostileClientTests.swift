// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import RPCTransport
import Testing

@Suite("Hostile and foreign clients", .timeLimit(.minutes(10)))
struct HostileClientTests {
    private static let emptyMessage: [UInt8] = [0, 0, 0, 0, 0]

    /// Sends bytes to an echo server, returns what the body makes of the connection, and checks that the server lives.
    private func withPeer<Result>(
        limits: TransportLimits = .defaults,
        _ body: (RawPeer) async throws -> Result
    ) async throws -> Result {
        try await withServer(limits: limits, [echo, loopEcho, count]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            let result = try await body(peer)
            try await peer.close()
            try await withChannel(port: port) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
                #expect(reply.message == number(1))
            }
            return result
        }
    }

    /// The header block of a response, as text; the server's HPACK uses literals and Huffman codes, so only the static
    /// status is told apart.
    private func statusByte(_ frame: RawPeer.Frame) -> UInt8? {
        // A dynamic table size update may come first.
        frame.payload.readableBytesView.first { $0 & 0xe0 != 0x20 }
    }

    @Test("a request that is not gRPC gets an HTTP answer")
    func contentType() async throws {
        try await self.withPeer { peer in
            try await peer.send(RawPeer.preface)
            try await peer.send(RawPeer.headers(path: "/test.Echo/Echo", contentType: "text/html", endStream: true))
            let frame = try await peer.waitForFrame(type: 1)
            #expect(frame.flags & 1 == 1, "the answer is headers alone")
            // 415 is not in the static table: index 8 (`:status`) with a literal value.
            #expect(self.statusByte(frame).map { $0 & 0x3f } == 8)
        }
    }

    @Test("a request without messages is refused with a status in headers alone")
    func noMessage() async throws {
        try await self.withPeer { peer in
            try await peer.send(RawPeer.preface)
            try await peer.send(RawPeer.headers(path: "/test.Echo/Echo", endStream: true))
            let frame = try await peer.waitForFrame(type: 1)
            #expect(frame.flags & 1 == 1)
            #expect(self.statusByte(frame) == 0x88, ":status 200 from the static table")
        }
    }

    @Test("an early status is followed by a reset with NO_ERROR")
    func earlyStatus() async throws {
        try await self.withPeer { peer in
            try await peer.send(RawPeer.preface)
            try await peer.send(RawPeer.headers(path: "/test.Echo/Missing"))
            let frame = try await peer.waitForFrame(type: 1)
            #expect(frame.flags & 1 == 1)
            let reset = try await peer.waitForFrame(type: 3)
            #expect(reset.payload.getInteger(at: reset.payload.readerIndex, as: UInt32.self) == 0)
        }
    }

    @Test(
        "a broken message ends only its call",
        arguments: [[2, 0, 0, 0, 0], [1, 0, 0, 0, 1, 7], [0, 0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0, 9, 1]] as [[UInt8]]
    )
    func brokenMessage(bytes: [UInt8]) async throws {
        try await self.withPeer { peer in
            try await peer.send(RawPeer.preface)
            try await peer.send(RawPeer.headers(path: "/test.Echo/LoopEcho"))
            try await peer.send(RawPeer.data(bytes, endStream: true))
            let frame = try await peer.waitForFrame(type: 1)
            #expect(frame.flags & 1 == 1)
            try await peer.send(RawPeer.headers(streamID: 3, path: "/test.Echo/LoopEcho"))
            try await peer.send(RawPeer.data(Self.emptyMessage, streamID: 3, endStream: true))
            try await peer.waitForFrame(type: 0)
        }
    }

    @Test(
        "bytes that are not HTTP/2 close the connection",
        arguments: ["get / HTTP/1.1\r\nHost: a\r\n\r\n", "\u{0}\u{1}", "PRINT / HTTP/1.1\r\n\r\n"]
    )
    func notHTTP2(text: String) async throws {
        let code = try await self.withPeer { peer in
            try await peer.send(ByteBuffer(string: text))
            return await peer.goAwayCodeAtEnd()
        }
        #expect(code == 1 || code == nil)
    }

    @Test("a frame that breaks the protocol ends its connection with a GOAWAY")
    func brokenFrame() async throws {
        let code = try await self.withPeer { peer in
            try await peer.send(RawPeer.preface)
            // A WINDOW_UPDATE of the wrong size.
            try await peer.send(RawPeer.frame(type: 8, payload: [0, 0, 1]))
            return await peer.goAwayCodeAtEnd()
        }
        #expect(code == 6)
    }

    @Test("a flood of pings from a peer that does not read ends the connection")
    func pingFlood() async throws {
        let code = try await self.withPeer { peer in
            try await peer.send(RawPeer.preface)
            var flood = ByteBuffer()
            for _ in 0..<3_000 {
                flood.writeImmutableBuffer(RawPeer.frame(type: 6, payload: [0, 0, 0, 0, 0, 0, 0, 1]))
            }
            try? await peer.send(flood)
            return await peer.goAwayCodeAtEnd()
        }
        #expect(code == 11 || code == nil)
    }

    @Test("a silent peer is disconnected after the handshake timeout")
    func silence() async throws {
        try await withServer(timing: ConnectionTiming(handshakeTimeout: .milliseconds(50)), [echo]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            _ = await peer.goAwayCodeAtEnd()
        }
    }

    @Test("an idle connection is drained")
    func idle() async throws {
        try await withServer(timing: ConnectionTiming(idleTimeout: .milliseconds(200)), [echo]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.send(RawPeer.preface)
            let code = await peer.goAwayCodeAtEnd()
            #expect(code == 0)
        }
    }

    @Test("every cut of a request is understood")
    func cuts() async throws {
        var request = RawPeer.preface
        request.writeImmutableBuffer(RawPeer.headers(path: "/test.Echo/LoopEcho"))
        request.writeImmutableBuffer(RawPeer.data([0, 0, 0, 0, 3, 1, 2, 3], endStream: true))
        let bytes = request
        try await self.withPeer { peer in
            for offset in 0..<bytes.readableBytes {
                try await peer.send(try #require(bytes.getSlice(at: bytes.readerIndex + offset, length: 1)))
            }
            let frame = try await peer.waitForFrame(type: 0)
            #expect(Array(frame.payload.readableBytesView) == [0, 0, 0, 0, 3, 1, 2, 3])
        }
    }
}
