// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("Rules for a peer's frames")
struct PeerRuleTests {
    struct Fault: CustomTestStringConvertible {
        var what: String
        var role = HTTP2Role.server
        var code: HTTP2ErrorCode
        var frames: [ByteBuffer]

        var testDescription: String { self.what }
    }

    private static let sizes: [Fault] = [
        Fault(what: "a large frame", code: .frameSizeError, frames: [data(1, Array(repeating: 0, count: 16_385))]),
        Fault(what: "a short PRIORITY", code: .frameSizeError, frames: [frame(type: 2, streamID: 1, payload: [1])]),
        Fault(what: "a long RST_STREAM", code: .frameSizeError, frames: [frame(type: 3, streamID: 1, payload: [1])]),
        Fault(what: "uneven SETTINGS", code: .frameSizeError, frames: [frame(type: 4, payload: [0, 1, 0])]),
        Fault(
            what: "SETTINGS acknowledged with a payload",
            code: .frameSizeError,
            frames: [
                frame(type: 4, flags: 1, payload: [0, 1, 0, 0, 0, 0])
            ]
        ),
        Fault(what: "a short PING", code: .frameSizeError, frames: [frame(type: 6, payload: [1, 2, 3])]),
        Fault(what: "a short GOAWAY", code: .frameSizeError, frames: [frame(type: 7, payload: [0, 0, 0, 0])]),
        Fault(what: "a long WINDOW_UPDATE", code: .frameSizeError, frames: [frame(type: 8, payload: [0, 0, 0, 1, 0])]),
        Fault(
            what: "HEADERS shorter than their priority",
            code: .frameSizeError,
            frames: [
                headers(1, [0, 0, 0, 0], flags: 0x24)
            ]
        ),
        Fault(
            what: "more settings than allowed",
            code: .enhanceYourCalm,
            frames: [
                frame(type: 4, payload: Array(repeating: 0, count: 33 * 6))
            ]
        ),
    ]

    private static let places: [Fault] = [
        Fault(what: "DATA on stream 0", code: .protocolError, frames: [data(0, [1])]),
        Fault(what: "DATA on an idle stream", code: .protocolError, frames: [data(1, [1])]),
        Fault(what: "HEADERS on stream 0", code: .protocolError, frames: [headers(0)]),
        Fault(what: "HEADERS on a server's stream", code: .protocolError, frames: [headers(2)]),
        Fault(
            what: "PRIORITY on stream 0",
            code: .protocolError,
            frames: [
                frame(type: 2, payload: [0, 0, 0, 0, 1])
            ]
        ),
        Fault(what: "RST_STREAM on stream 0", code: .protocolError, frames: [resetFrame(0, 8)]),
        Fault(what: "RST_STREAM on an idle stream", code: .protocolError, frames: [resetFrame(1, 8)]),
        Fault(what: "SETTINGS on a stream", code: .protocolError, frames: [frame(type: 4, streamID: 1)]),
        Fault(
            what: "PUSH_PROMISE",
            code: .protocolError,
            frames: [
                headers(1), frame(type: 5, flags: 4, streamID: 1, payload: [0, 0, 0, 2, 0x82]),
            ]
        ),
        Fault(
            what: "PING on a stream",
            code: .protocolError,
            frames: [
                frame(type: 6, streamID: 1, payload: Array(repeating: 0, count: 8))
            ]
        ),
        Fault(
            what: "GOAWAY on a stream",
            code: .protocolError,
            frames: [
                frame(type: 7, streamID: 1, payload: Array(repeating: 0, count: 8))
            ]
        ),
        Fault(
            what: "GOAWAY with a stream of the sender's",
            code: .protocolError,
            frames: [
                frame(type: 7, payload: [0, 0, 0, 1, 0, 0, 0, 0])
            ]
        ),
        Fault(what: "WINDOW_UPDATE on an idle stream", code: .protocolError, frames: [windowUpdate(1, 1)]),
        Fault(
            what: "CONTINUATION alone",
            code: .protocolError,
            frames: [
                frame(type: 9, flags: 4, streamID: 1, payload: [0x82])
            ]
        ),
        Fault(
            what: "CONTINUATION after its block",
            code: .protocolError,
            frames: [
                headers(1), frame(type: 9, flags: 4, streamID: 1, payload: [0x82]),
            ]
        ),
        Fault(
            what: "another frame in a block",
            code: .protocolError,
            frames: [
                headers(1, flags: 0), frame(type: 6, payload: Array(repeating: 0, count: 8)),
            ]
        ),
        Fault(
            what: "an unknown frame in a block",
            code: .protocolError,
            frames: [
                headers(1, flags: 0), frame(type: 0x55, streamID: 1),
            ]
        ),
        Fault(
            what: "CONTINUATION of another stream",
            code: .protocolError,
            frames: [
                headers(1, flags: 0), frame(type: 9, flags: 4, streamID: 3),
            ]
        ),
        Fault(what: "SETTINGS acknowledged twice", code: .protocolError, frames: [frame(type: 4, flags: 1)]),
        Fault(what: "a server's request", role: .client, code: .protocolError, frames: [headers(2)]),
        Fault(
            what: "a response without a request",
            role: .client,
            code: .protocolError,
            frames: [
                headers(1, RawPeer.response)
            ]
        ),
        Fault(
            what: "a window for a request that was not sent",
            role: .client,
            code: .protocolError,
            frames: [
                windowUpdate(1, 1)
            ]
        ),
    ]

    private static let contents: [Fault] = [
        Fault(
            what: "padding longer than DATA",
            code: .protocolError,
            frames: [
                headers(1), data(1, [2, 0], flags: 8),
            ]
        ),
        Fault(
            what: "DATA without the length of its padding",
            code: .protocolError,
            frames: [
                headers(1), data(1, [], flags: 8),
            ]
        ),
        Fault(
            what: "padding longer than HEADERS",
            code: .protocolError,
            frames: [
                headers(1, [7] + RawPeer.request, flags: 0xc)
            ]
        ),
        Fault(
            what: "a stream that depends on itself",
            code: .protocolError,
            frames: [
                headers(1, [0, 0, 0, 1, 16] + RawPeer.request, flags: 0x24)
            ]
        ),
        Fault(
            what: "a priority on itself",
            code: .protocolError,
            frames: [
                frame(type: 2, streamID: 1, payload: [0, 0, 0, 1, 16])
            ]
        ),
        Fault(what: "a window of 0 bytes", code: .protocolError, frames: [windowUpdate(0, 0)]),
        Fault(what: "a stream's window of 0 bytes", code: .protocolError, frames: [headers(1), windowUpdate(1, 0)]),
        Fault(
            what: "a connection's window of 2^31",
            code: .flowControlError,
            frames: [
                windowUpdate(0, 0x7fff_ffff - 65_535), windowUpdate(0, 1),
            ]
        ),
        Fault(what: "a first window of 2^31", code: .flowControlError, frames: [settings([4: 0x8000_0000])]),
        Fault(
            what: "settings that make a window too large",
            code: .flowControlError,
            frames: [
                headers(1), windowUpdate(1, 0x7fff_ffff - 65_535), settings([4: 65_536]),
            ]
        ),
        Fault(what: "push set to 2", code: .protocolError, frames: [settings([2: 2])]),
        Fault(what: "push turned on by a server", role: .client, code: .protocolError, frames: [settings([2: 1])]),
        Fault(what: "frames of less than 16 KiB", code: .protocolError, frames: [settings([5: 16_383])]),
        Fault(what: "frames of 16 MiB", code: .protocolError, frames: [settings([5: 1 << 24])]),
        Fault(
            what: "extended CONNECT taken back",
            role: .client,
            code: .protocolError,
            frames: [
                settings([8: 1]), settings([8: 0]),
            ]
        ),
        Fault(what: "priorities changed", code: .protocolError, frames: [settings([9: 1])]),
        Fault(what: "an index beyond the table", code: .compressionError, frames: [headers(1, [0xbe])]),
        Fault(what: "an index of 0", code: .compressionError, frames: [headers(1, [0x80])]),
        Fault(what: "a block that is cut off", code: .compressionError, frames: [headers(1, [0x82, 0x04, 9])]),
        Fault(
            what: "a table larger than allowed",
            code: .compressionError,
            frames: [
                headers(1, [0x3f, 0xe2, 0x1f] + RawPeer.request)
            ]
        ),
        Fault(
            what: "a table size after a field",
            code: .compressionError,
            frames: [
                headers(1, RawPeer.request + [0x20])
            ]
        ),
        Fault(
            what: "more data than the connection's window",
            code: .flowControlError,
            frames: [
                headers(1), headers(3), headers(5),
            ] + [1, 3, 5, 1, 3].map { data($0, Array(repeating: 0, count: 16_384)) }
        ),
    ]

    @Test(
        "end the connection with the code that the standard names",
        arguments: Self.sizes + Self.places + Self.contents
    )
    func connectionFaults(fault: Fault) throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.connectionWindowBytes = 65_535
        let peer = try RawPeer(fault.role, configuration)
        var code: HTTP2ErrorCode?
        for bytes in fault.frames where code == nil { code = peer.sendFault(bytes) }
        #expect(code == fault.code)
        #expect(peer.codec.isFinished)
        // Nothing is sent after the GOAWAY.
        #expect(peer.frames.last?.type == 7)
        peer.codec.ping(opaque: 1)
        #expect(peer.codec.takeOutput().isEmpty)
    }

    @Test("say how far a connection came that ends")
    func lastStream() throws {
        let peer = try RawPeer()
        try peer.send(headers(1), headers(5))
        #expect(peer.sendFault(data(0)) == .protocolError)
        #expect(peer.frames.last?.number(at: 0) == 5)
    }

    struct StreamFault: CustomTestStringConvertible {
        var what: String
        var code: HTTP2ErrorCode = .protocolError
        var frames: [ByteBuffer]

        var testDescription: String { self.what }
    }

    private static let lengthOf3 = RawPeer.request + literal("content-length", "3")

    private static let faultsOfStreams: [StreamFault] = [
        StreamFault(what: "no path", frames: [headers(1, [0x83, 0x86, 0x01, 1, 0x61])]),
        StreamFault(what: "an upper-case name", frames: [headers(1, RawPeer.request + literal("X", "1"))]),
        StreamFault(
            what: "a field of HTTP/1.1",
            frames: [headers(1, RawPeer.request + literal("connection", "close"))]
        ),
        StreamFault(
            what: "one in trailers",
            frames: [headers(1), headers(1, literal("connection", "close"), flags: 5)]
        ),
        StreamFault(what: "a path in trailers", frames: [headers(1), headers(1, [0x84], flags: 5)]),
        StreamFault(what: "trailers that do not end the stream", frames: [headers(1), headers(1, literal("a", "b"))]),
        StreamFault(what: "a body that is too long", frames: [headers(1, Self.lengthOf3), data(1, [1, 2, 3, 4])]),
        StreamFault(
            what: "a body that is too short",
            frames: [
                headers(1, Self.lengthOf3), data(1, [1, 2]), data(1, flags: 1),
            ]
        ),
        StreamFault(what: "a missing body", frames: [headers(1, Self.lengthOf3, flags: 5)]),
        StreamFault(
            what: "one that ends with trailers",
            frames: [
                headers(1, Self.lengthOf3), data(1, [1, 2]), headers(1, literal("a", "b"), flags: 5),
            ]
        ),
        StreamFault(
            what: "a wrong length in trailers",
            frames: [
                headers(1), data(1, [1, 2]), headers(1, literal("content-length", "3"), flags: 5),
            ]
        ),
        StreamFault(
            what: "a window of 2^31",
            code: .flowControlError,
            frames: [
                headers(1), windowUpdate(1, 0x7fff_ffff - 65_534),
            ]
        ),
        StreamFault(
            what: "more data than the window",
            code: .flowControlError,
            frames: [
                headers(1), data(1, Array(repeating: 0, count: 501)),
            ]
        ),
    ]

    @Test("reset a stream that breaks them, and leave the connection alone", arguments: Self.faultsOfStreams)
    func streamFaults(fault: StreamFault) throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.streamWindowBytes = 500
        let peer = try RawPeer(.server, configuration)
        for bytes in fault.frames { try peer.send(bytes) }
        #expect(peer.reset(of: 1) == fault.code)
        #expect(peer.events.closes(of: 1).map(\.origin) == [.fault])
        #expect(peer.events.ends(of: 1) == 0)
        // Frames that cross the reset are ignored, and the next stream is as good as any.
        try peer.send(windowUpdate(1, 1), headers(3, flags: 5))
        #expect(peer.events.blocks(of: 3).count == 1)
    }

    @Test("let a response of any length follow a request for less", arguments: ["200", "204", "304"])
    func responseLengths(status: String) throws {
        let peer = try RawPeer(.client)
        let stream = try peer.codec.submitRequest(requestFields, endStream: true)
        peer.collect()
        let block = literal(":status", status) + (status == "200" ? literal("content-length", "2") : [])
        try peer.send(headers(UInt32(stream), block))
        try peer.send(data(UInt32(stream), [1, 2], flags: 1))
        #expect(peer.reset(of: stream) == (status == "200" ? nil : .protocolError))
    }

    @Test("take interim responses before the response, and no body before it")
    func interim() throws {
        let peer = try RawPeer(.client)
        let first = try peer.codec.submitRequest(requestFields, endStream: true)
        let second = try peer.codec.submitRequest(requestFields, endStream: true)
        peer.collect()
        let continues = literal(":status", "103")
        try peer.send(headers(UInt32(first), continues), headers(UInt32(first), continues))
        try peer.send(headers(UInt32(first), RawPeer.response), data(UInt32(first), [1], flags: 1))
        #expect(peer.events.blocks(of: first).map(\.kind) == [.interim, .interim, .response])
        #expect(peer.events.closes(of: first).map(\.code) == [.noError])
        try peer.send(headers(UInt32(second), continues), data(UInt32(second), [1]))
        #expect(peer.reset(of: second) == .protocolError)
    }

    @Test("refuse a client's own requests with rules of their own for bodies", arguments: ["HEAD", "CONNECT"])
    func methods(name: String) throws {
        let peer = try RawPeer(.client)
        var fields = requestFields
        fields[0].value = name
        #expect(throws: HTTP2CodecError.self) { try peer.codec.submitRequest(fields, endStream: true) }
        #expect(throws: HTTP2CodecError.self) { try peer.codec.store(fields) }
    }
}
