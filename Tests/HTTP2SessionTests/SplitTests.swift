// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("Bytes in pieces")
struct SplitTests {
    /// `:method POST`, `:scheme http`, `:path /s/M` and `:authority a`, without compression (RFC 7541, appendix B).
    private static let block: [UInt8] = [0x83, 0x86, 0x04, 4, 0x2f, 0x73, 0x2f, 0x4d, 0x01, 1, 0x61]

    private static let preface = ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    private static func request(_ streamID: UInt32) -> ByteBuffer {
        frame(type: 1, flags: 5, streamID: streamID, payload: Self.block)
    }

    /// What a server makes of frames in pieces of a length: the events' streams and the failure.
    private static func outcome(_ frames: [ByteBuffer], pieceBytes: Int) throws -> (events: [String], failure: String?)
    {
        let server = try HTTP2Codec(role: .server, now: .now)
        var bytes = gathered([Self.preface, frame(type: 4)] + frames)
        var events: [String] = []
        var failure: String?
        while failure == nil, let piece = bytes.readSlice(length: min(pieceBytes, bytes.readableBytes)) {
            if piece.readableBytes == 0 { break }
            do {
                try server.receive(piece, now: .now)
            } catch {
                failure = error.message
            }
            events += server.takeEvents().map { "\($0)" }
        }
        return (events, failure)
    }

    @Test("a continued header block may come one byte at a time", arguments: [1, 2, 5, 8, 9, 1_000])
    func continuation(pieceBytes: Int) throws {
        let half = Self.block.count / 2
        let frames = [
            frame(type: 1, flags: 1, streamID: 1, payload: Array(Self.block[..<half])),
            frame(type: 9, flags: 4, streamID: 1, payload: Array(Self.block[half...])),
        ]
        let outcome = try Self.outcome(frames, pieceBytes: pieceBytes)
        #expect(outcome.failure == nil)
        let hasRequest = outcome.events.last?.contains(":path: /s/M") == true
        #expect(hasRequest)
    }

    @Test("what came before a fault is reported, however the bytes are split", arguments: [1, 3, 20, 10_000])
    func skippedStream(pieceBytes: Int) throws {
        let outcome = try Self.outcome([Self.request(5), Self.request(3)], pieceBytes: pieceBytes)
        #expect(outcome.failure?.contains("stream 3") == true)
        #expect(outcome.events.count { $0.contains(":path: /s/M") } == 1)
    }

    @Test("data that is only padding is useless")
    func padding() throws {
        let open = frame(type: 1, flags: 4, streamID: 1, payload: Self.block)
        let padding = (0..<2_000).map { _ in frame(type: 0, flags: 8, streamID: 1, payload: [1, 0]) }
        let outcome = try Self.outcome([open] + padding, pieceBytes: 10_000)
        #expect(outcome.failure?.contains("an empty DATA frame") == true)
    }

    @Test("a frame on a stream that had already ended is found in the same piece", arguments: [1, 7, 10_000])
    func endedStream(pieceBytes: Int) throws {
        let frames = [
            frame(type: 1, flags: 4, streamID: 1, payload: Self.block),
            frame(type: 3, streamID: 1, payload: [0, 0, 0, 8]),
            frame(type: 0, flags: 1, streamID: 1, payload: [1]),
        ]
        let outcome = try Self.outcome(frames, pieceBytes: pieceBytes)
        #expect(outcome.failure?.contains("stream 1 got another frame after the peer had ended it") == true)
    }
}

@Suite("A header block that is too long to send")
struct UnsendableBlockTests {
    private static let long = HTTP2HeaderField("grpc-message", String(repeating: "a", count: 2 << 20))

    @Test("resets the stream, so that the peer does not wait for it", arguments: [true, false])
    func reset(asTrailers: Bool) throws {
        let pair = try CodecPair()
        let stream = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.exchange()
        if asTrailers {
            try pair.server.submitResponse(streamID: stream, responseFields, endStream: false)
            try pair.server.submitTrailers(streamID: stream, trailerFields + [Self.long])
        } else {
            try pair.server.submitResponse(streamID: stream, responseFields + [Self.long], endStream: true)
        }
        try pair.exchange()
        #expect(pair.clientEvents.closes(of: stream).map(\.code) == [.internalError])
        #expect(pair.serverEvents.closes(of: stream).map(\.code) == [.internalError])
        #expect(pair.server.openStreamCount == 0)
    }
}
