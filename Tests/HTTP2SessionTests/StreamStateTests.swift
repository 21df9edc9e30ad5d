// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import HTTP2Session

@Suite("Windows and streams on the wire")
struct StreamStateTests {
    @Test("a first window made smaller stops a body until the debt is paid")
    func negativeWindow() throws {
        let peer = try RawPeer()
        try peer.send(headers(1))
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: false)
        try peer.codec.submitData(streamID: 1, [pattern(100_000)], endStream: true)
        peer.collect()
        #expect(peer.body(of: 1).count == 65_535)
        // 65,535 bytes are sent, and only 1,000 were allowed after all.
        try peer.send(settings([4: 1_000]), windowUpdate(0, 1_000_000), windowUpdate(1, 64_535))
        #expect(peer.body(of: 1).count == 65_535)
        try peer.send(windowUpdate(1, 10))
        #expect(peer.body(of: 1).count == 65_545)
        try peer.send(settings([4: 65_535]))
        #expect(peer.body(of: 1) == Array(pattern(100_000).readableBytesView))
        #expect(peer.frames.last { $0.type == 0 }?.flags == 1)
    }

    @Test("a first window of 0 lets head and trailers pass, and an empty body's end")
    func zeroWindow() throws {
        let peer = try RawPeer()
        try peer.send(settings([4: 0]), headers(1, flags: 5), headers(3, flags: 5))
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: false)
        try peer.codec.submitTrailers(streamID: 1, trailerFields)
        try peer.codec.submitResponse(streamID: 3, responseFields, endStream: false)
        peer.collect()
        try peer.codec.submitData(streamID: 3, [], endStream: true)
        peer.collect()
        #expect(peer.events.closes(of: 1).map(\.code) == [.noError])
        #expect(peer.events.closes(of: 3).map(\.code) == [.noError])
        #expect(peer.frames.filter { $0.streamID == 1 }.map(\.type) == [1, 1])
        #expect(peer.frames.filter { $0.streamID == 3 }.map(\.type) == [1, 0])
    }

    @Test("our own window made smaller is credited at once for what was consumed before")
    func smallerOwnWindow() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.streamWindowBytes = 4_000
        let peer = try RawPeer(.server, configuration, settled: false)
        // Before the client knows our settings it may send by the standard's window.
        try peer.send(headers(1))
        for _ in 0..<3 { try peer.send(data(1, Array(repeating: 1, count: 10_000))) }
        peer.codec.consume(streamID: 1, byteCount: 30_000)
        peer.collect()
        #expect(peer.credit(of: 1) == 0)
        try peer.send(frame(type: 4, flags: 1))
        #expect(peer.credit(of: 1) == 30_000)
        try peer.send(data(1, Array(repeating: 1, count: 4_000)), data(1, flags: 1))
        #expect(peer.events.ends(of: 1) == 1)
        #expect(peer.reset(of: 1) == nil)
    }

    @Test("the end of a body needs no window")
    func endWithoutWindow() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.streamWindowBytes = 1_000
        let peer = try RawPeer(.server, configuration, settled: false)
        try peer.send(headers(1), data(1, Array(repeating: 1, count: 10_000)), frame(type: 4, flags: 1))
        try peer.send(data(1, flags: 1))
        #expect(peer.events.ends(of: 1) == 1)
    }

    @Test("padding is credited at once, and the connection gets back what a fault left")
    func padding() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.streamWindowBytes = 1_000
        configuration.connectionWindowBytes = 65_535
        let peer = try RawPeer(.server, configuration)
        try peer.send(headers(1))
        // 100 bytes of body and 256 of padding in each frame.
        let padded = data(1, [255] + Array(repeating: 7, count: 100) + Array(repeating: 0, count: 255), flags: 8)
        try peer.send(padded, padded)
        #expect(peer.credit(of: 1) == 512)
        #expect(peer.events.body(of: 1).readableBytes == 200)
        #expect(peer.codec.uncreditedBytes == 200)
        // The window has 800 bytes now; a frame beyond it costs the stream and nothing else.
        try peer.send(data(1, Array(repeating: 1, count: 900)))
        #expect(peer.reset(of: 1) == .flowControlError)
        #expect(peer.codec.receiveWindow.used - peer.codec.receiveWindow.consumed == 0)
    }

    @Test("a stream that ends within its header block says nothing more")
    func endedWithinBlock() throws {
        let peer = try RawPeer()
        try peer.send(headers(1), headers(1, [0x00], flags: 1))
        peer.codec.reset(streamID: 1, code: .cancel)
        peer.collect()
        #expect(peer.events.closes(of: 1).count == 1)
        peer.forget()
        try peer.send(frame(type: 9, flags: 4, streamID: 1, payload: Array(literal("a", "b").dropFirst())))
        #expect(peer.events.isEmpty)
        #expect(peer.frames.isEmpty)
        try peer.send(headers(3))
        #expect(peer.events.blocks(of: 3).count == 1)
    }

    @Test("streams above the limit are refused until the client can know it, and a fault afterwards")
    func concurrency() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.maxConcurrentStreams = 2
        let peer = try RawPeer(.server, configuration, settled: false)
        try peer.send(headers(1), headers(3), headers(5, flags: 5))
        #expect(peer.reset(of: 5) == .refusedStream)
        #expect(peer.events.blocks(of: 5).isEmpty)
        try peer.send(frame(type: 4, flags: 1), resetFrame(3, 8), headers(7))
        #expect(peer.events.blocks(of: 7).count == 1)
        #expect(peer.sendFault(headers(9)) == .protocolError)
    }

    @Test("the last identifiers of a connection can be used")
    func lastIdentifier() throws {
        let peer = try RawPeer()
        try peer.send(headers(0x7fff_fffd, flags: 5), headers(0x7fff_ffff, flags: 5))
        #expect(peer.events.blocks(of: .max).count == 1)
        #expect(peer.sendFault(headers(0x7fff_fffb, flags: 5)) == .protocolError)

        let pair = try CodecPair()
        pair.client.nextStreamID = .max
        let stream = try pair.client.submitRequest(requestFields, endStream: true)
        #expect(stream == .max)
        #expect(!pair.client.acceptsNewStreams)
        #expect(throws: HTTP2CodecError.self) { try pair.client.submitRequest(requestFields, endStream: true) }
        try pair.exchange()
        #expect(pair.serverEvents.blocks(of: .max).count == 1)
    }

    @Test("a block of more than nine frames is a flood, empty ones or not", arguments: [0, 1])
    func continuations(bytesEach: Int) throws {
        for count in [8, 9] {
            let peer = try RawPeer()
            try peer.send(headers(1, Array(RawPeer.request.prefix(3)) + [0x01, 0x7f, 0x00], flags: 1))
            var code: HTTP2ErrorCode?
            for index in 1...count where code == nil {
                // The authority's 127 bytes, a few at a time.
                let isLast = index == count
                let payload = Array(repeating: UInt8(ascii: "a"), count: isLast ? 127 - 7 * bytesEach : bytesEach)
                code = peer.sendFault(frame(type: 9, flags: isLast ? 4 : 0, streamID: 1, payload: payload))
            }
            #expect(code == (count == 8 ? nil : .enhanceYourCalm))
            #expect(peer.events.blocks(of: 1).count == (count == 8 ? 1 : 0))
        }
    }

    @Test("a client drops what a GOAWAY excludes and finishes the rest, and later ones only lower the mark")
    func goAway() throws {
        let peer = try RawPeer(.client)
        for _ in 0..<4 { _ = try peer.codec.submitRequest(requestFields, endStream: true) }
        peer.collect()
        func goAway(_ last: UInt32) -> ByteBuffer { frame(type: 7, payload: bigEndian(last) + bigEndian(0)) }
        try peer.send(goAway(0x7fff_ffff))
        #expect(peer.codec.openStreamCount == 4)
        try peer.send(goAway(5))
        #expect(peer.events.closes(of: 7).map(\.origin) == [.neverProcessed])
        try peer.send(goAway(1), headers(1, RawPeer.response, flags: 5))
        #expect(peer.events.closes(of: 1).map(\.origin) == [.local])
        #expect(peer.codec.isFinished)
        #expect(peer.sendFault(goAway(3)) == .protocolError)
    }
}
