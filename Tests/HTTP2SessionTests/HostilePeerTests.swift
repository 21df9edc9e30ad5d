// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("A hostile peer")
struct HostilePeerTests {
    /// A server behind a preface and settings written by hand.
    private func server(_ configuration: HTTP2CodecConfiguration = .defaults) throws -> HTTP2Codec {
        let server = try HTTP2Codec(role: .server, configuration: configuration, now: .now)
        try server.receive(ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), now: .now)
        try server.receive(frame(type: 4), now: .now)
        _ = server.takeOutput()
        _ = server.takeEvents()
        return server
    }

    /// `:method: POST`, `:scheme: http`, `:path: /` from the static table and `:authority: a` as a literal.
    private static let minimalRequest: [UInt8] = [0x83, 0x86, 0x84, 0x41, 0x01, 0x61]

    /// Sends frames until the codec gives up; returns how many that took and why it gave up.
    private func flood(
        _ server: HTTP2Codec,
        limit: Int,
        now: ContinuousClock.Instant = .now,
        _ next: (Int) -> ByteBuffer
    ) -> (count: Int, error: HTTP2CodecError?) {
        for index in 0..<limit {
            do throws(HTTP2CodecError) {
                try server.receive(next(index), now: now)
                _ = server.takeOutput()
                _ = server.takeEvents()
            } catch {
                return (index, error)
            }
            if let failure = server.failure { return (index, failure) }
        }
        return (limit, nil)
    }

    /// The error code of the last GOAWAY in the output.
    private func goAwayCode(_ server: HTTP2Codec) -> UInt32? {
        var bytes = gathered(server.takeOutput())
        var code: UInt32?
        while let header = bytes.readBytes(length: 9) {
            let length = Int(header[0]) << 16 | Int(header[1]) << 8 | Int(header[2])
            guard let payload = bytes.readSlice(length: length) else { break }
            if header[3] == 7 { code = payload.getInteger(at: payload.readerIndex + 4) }
        }
        return code
    }

    @Test(
        "floods of useless frames end the connection",
        arguments: ["ping", "settings", "empty", "priority", "window", "unknown"]
    )
    func floods(kind: String) throws {
        let server = try self.server()
        try server.receive(frame(type: 1, flags: 4, streamID: 1, payload: Self.minimalRequest), now: .now)
        let result = self.flood(server, limit: 10_000) { _ in
            switch kind {
            case "ping": frame(type: 6, payload: [0, 1, 2, 3, 4, 5, 6, 7])
            case "settings": frame(type: 4)
            case "empty": frame(type: 0, streamID: 1)
            case "unknown": frame(type: 0xbb, payload: [1])
            case "window": frame(type: 8, payload: [0, 0, 0, 1])
            default: frame(type: 2, streamID: 1, payload: [0, 0, 0, 0, 16])
            }
        }
        #expect(result.error?.code == .flooded)
        #expect(result.count <= 2_000)
        #expect(self.goAwayCode(server) == HTTP2ErrorCode.enhanceYourCalm.rawValue)
        #expect(server.isFinished)
    }

    @Test("a slow stream of pings is not a flood")
    func patientPings() throws {
        let server = try self.server()
        var now = ContinuousClock.now
        for _ in 0..<5_000 {
            now += .milliseconds(25)
            try server.receive(frame(type: 6, payload: [0, 1, 2, 3, 4, 5, 6, 7]), now: now)
            #expect(gathered(server.takeOutput()).readableBytes == 17)
        }
    }

    @Test("streams opened to be torn down by faults end the connection")
    func madeYouReset() throws {
        let server = try self.server()
        let result = self.flood(server, limit: 2_000) { index in
            let streamID = UInt32(2 * index + 1)
            var bytes = frame(type: 1, flags: 4, streamID: streamID, payload: Self.minimalRequest)
            bytes.writeImmutableBuffer(frame(type: 8, streamID: streamID, payload: [0x7f, 0xff, 0xff, 0xff]))
            return bytes
        }
        #expect(result.error?.code == .flooded)
        #expect(result.count <= 200)
    }

    @Test("rapid resets end the connection")
    func rapidReset() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.resetBurst = 100
        configuration.resetsPerSecond = 1
        let server = try self.server(configuration)
        let now = ContinuousClock.now
        var finishedAt: Int?
        for index in 0..<1_000 where finishedAt == nil {
            let streamID = UInt32(2 * index + 1)
            var bytes = frame(type: 1, flags: 5, streamID: streamID, payload: Self.minimalRequest)
            bytes.writeImmutableBuffer(frame(type: 3, streamID: streamID, payload: [0, 0, 0, 8]))
            try? server.receive(bytes, now: now)
            _ = server.takeOutput()
            if server.isFinished { finishedAt = index }
        }
        #expect(finishedAt == 100)
        #expect(server.failure?.code == .flooded)
    }

    @Test("a header list over the limit loses its fields and is reported")
    func headerList() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.maxHeaderListBytes = 1_000
        let pair = try CodecPair(server: configuration)
        let large = requestFields + [HTTP2HeaderField("x", String(repeating: "v", count: 900))]
        let stream = try pair.client.submitRequest(large, endStream: true)
        try pair.exchange()
        let reported = pair.serverEvents.contains { event in
            if case .headersTooLarge(stream, .request, let size, 1_000) = event { size > 1_000 } else { false }
        }
        #expect(reported)
        #expect(pair.serverEvents.ends(of: stream) == 1)
        // The compression state is intact and the connection goes on.
        let next = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.exchange()
        #expect(pair.serverEvents.blocks(of: next).first?.fields == requestFields)
    }

    @Test("a block of thousands of one-byte fields ends the connection")
    func headerBomb() throws {
        let server = try self.server()
        // 16,000 times the static table's `accept-encoding: gzip, deflate`: 63 bytes each against the limit.
        let payload = Self.minimalRequest + Array(repeating: 0x90, count: 16_000)
        let error = #expect(throws: HTTP2CodecError.self) {
            try server.receive(frame(type: 1, flags: 5, streamID: 1, payload: payload), now: .now)
        }
        #expect(error?.code == .flooded)
        #expect(self.goAwayCode(server) == HTTP2ErrorCode.enhanceYourCalm.rawValue)
    }

    @Test("a smaller stream identifier is a connection error")
    func smallerStreamID() throws {
        let server = try self.server()
        try server.receive(frame(type: 1, flags: 5, streamID: 5, payload: Self.minimalRequest), now: .now)
        let error = #expect(throws: HTTP2CodecError.self) {
            try server.receive(frame(type: 1, flags: 5, streamID: 3, payload: Self.minimalRequest), now: .now)
        }
        #expect(error?.code == .peerFault)
        #expect(self.goAwayCode(server) == HTTP2ErrorCode.protocolError.rawValue)
    }

    @Test("a frame on a stream that the peer ended is a connection error", arguments: [0, 1] as [UInt8])
    func frameAfterEnd(type: UInt8) throws {
        let server = try self.server()
        try server.receive(frame(type: 1, flags: 5, streamID: 1, payload: Self.minimalRequest), now: .now)
        try server.submitResponse(streamID: 1, responseFields, endStream: true)
        _ = server.takeOutput()
        #expect(!server.isOpen(streamID: 1))
        #expect(throws: HTTP2CodecError.self) {
            try server.receive(frame(type: type, flags: 5, streamID: 1, payload: Self.minimalRequest), now: .now)
        }
        #expect(self.goAwayCode(server) == HTTP2ErrorCode.streamClosed.rawValue)
    }

    @Test("trailers that cross our reset are ignored")
    func trailersAfterReset() throws {
        let server = try self.server()
        try server.receive(frame(type: 1, flags: 4, streamID: 1, payload: Self.minimalRequest), now: .now)
        server.reset(streamID: 1, code: .cancel)
        _ = server.takeOutput()
        try server.receive(frame(type: 1, flags: 5, streamID: 1, payload: [0x90]), now: .now)
        #expect(server.failure == nil)
    }

    @Test(
        "bytes that are not HTTP/2 are refused",
        arguments: ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "PRI * HTTP/2.1"]
    )
    func notHTTP2(text: String) throws {
        let server = try HTTP2Codec(role: .server, now: .now)
        let error = #expect(throws: HTTP2CodecError.self) { try server.receive(ByteBuffer(string: text), now: .now) }
        #expect(error?.code == .peerFault)
    }

    @Test("mutated traffic never crashes a codec and never yields two ends of one stream", arguments: 0..<4)
    func mutations(worker: Int) throws {
        let pair = try CodecPair(settled: false)
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(300)], endStream: false)
        try pair.client.submitTrailers(streamID: stream, trailerFields)
        let second = try pair.client.submitRequest(requestFields, endStream: true)
        pair.client.ping(opaque: 1)
        var recorded = gathered(pair.client.takeOutput())
        let good = recorded.readBytes(length: recorded.readableBytes) ?? []
        #expect(second > stream)

        var generator = SplitMix64(state: UInt64(worker) &* 977 &+ 5)
        for _ in 0..<250 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 24..<bytes.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                case 1: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 2: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: place)
                default: bytes.removeSubrange(place..<min(bytes.count, place + 3))
                }
            }
            let server = try HTTP2Codec(role: .server, now: .now)
            var events: [HTTP2Event] = []
            var rest = ByteBuffer(bytes: bytes)
            while let part = rest.readSlice(length: min(rest.readableBytes, 57)), part.readableBytes > 0 {
                do throws(HTTP2CodecError) { try server.receive(part, now: .now) } catch { break }
                events += server.takeEvents()
                for case .headers(let block) in events.suffix(3) where server.isOpen(streamID: block.streamID) {
                    try? server.submitResponse(streamID: block.streamID, responseFields, endStream: true)
                }
                _ = server.takeOutput()
            }
            events += server.takeEvents()
            for streamID in [stream, second] {
                #expect(events.closes(of: streamID).count <= 1)
                #expect(events.ends(of: streamID) <= 1)
            }
        }
    }
}
