// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("Flow control")
struct FlowControlTests {
    private static var narrow: HTTP2CodecConfiguration {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.streamWindowBytes = 40_000
        configuration.connectionWindowBytes = 65_535
        return configuration
    }

    @Test("stops the sender at the stream's window and lets it continue with the credit given")
    func streamWindow() throws {
        var configuration = Self.narrow
        configuration.connectionWindowBytes = 1 << 20
        let pair = try CodecPair(server: configuration)
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(100_000)], endStream: true)
        try pair.exchange()
        #expect(pair.serverEvents.body(of: stream).readableBytes == 40_000)
        #expect(pair.client.queuedBytes(streamID: stream) == 60_000)

        pair.server.consume(streamID: stream, byteCount: 30_000)
        try pair.exchange()
        #expect(pair.serverEvents.body(of: stream).readableBytes == 70_000)

        pair.server.consume(streamID: stream, byteCount: 40_000)
        try pair.exchange()
        #expect(pair.serverEvents.body(of: stream) == pattern(100_000))
        #expect(pair.serverEvents.ends(of: stream) == 1)
    }

    @Test("stops all streams at the connection's window")
    func connectionWindow() throws {
        let pair = try CodecPair(server: Self.narrow)
        var streams: [Int32] = []
        for _ in 0..<3 {
            let stream = try pair.client.submitRequest(requestFields, endStream: false)
            try pair.client.submitData(streamID: stream, [pattern(30_000)], endStream: true)
            streams.append(stream)
        }
        try pair.exchange()
        let received = streams.map { pair.serverEvents.body(of: $0).readableBytes }
        #expect(received.reduce(0, +) == 65_535)
        for (stream, count) in zip(streams, received) { pair.server.consume(streamID: stream, byteCount: count) }
        try pair.exchange()
        for stream in streams { #expect(pair.serverEvents.body(of: stream) == pattern(30_000)) }
    }

    @Test("gives the connection back what closed streams left unread")
    func closedStreamsLeakNothing() throws {
        let pair = try CodecPair(server: Self.narrow)
        // Ten times the connection's window in dropped bodies.
        for _ in 0..<20 {
            let stream = try pair.client.submitRequest(requestFields, endStream: false)
            try pair.client.submitData(streamID: stream, [pattern(35_000)], endStream: false)
            try pair.exchange()
            #expect(pair.serverEvents.body(of: stream).readableBytes == 35_000)
            pair.server.reset(streamID: stream, code: .cancel)
            try pair.exchange()
            #expect(pair.clientEvents.closes(of: stream).map(\.code) == [.cancel])
            pair.serverEvents = []
        }
    }

    @Test("credits data that arrives after this side reset the stream")
    func dataAfterReset() throws {
        let pair = try CodecPair(server: Self.narrow)
        for _ in 0..<20 {
            let stream = try pair.client.submitRequest(requestFields, endStream: false)
            try pair.exchange()
            pair.server.reset(streamID: stream, code: .cancel)
            let reset = gathered(pair.server.takeOutput())
            // The body crosses the reset on the wire.
            try pair.client.submitData(streamID: stream, [pattern(35_000)], endStream: false)
            try pair.server.receive(gathered(pair.client.takeOutput()), now: pair.now)
            try pair.client.receive(reset, now: pair.now)
            try pair.exchange()
        }
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(35_000)], endStream: true)
        try pair.exchange()
        #expect(pair.serverEvents.body(of: stream) == pattern(35_000))
    }

    @Test("tells the sender when its queue has drained, once")
    func drainNotice() throws {
        let pair = try CodecPair(server: Self.narrow)
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(60_000)])
        #expect(!pair.client.notifyDrained(streamID: stream, atOrBelow: 10_000))
        try pair.exchange()
        func drains() -> Int {
            pair.clientEvents.count { if case .drained(stream) = $0 { true } else { false } }
        }
        #expect(drains() == 0)
        pair.server.consume(streamID: stream, byteCount: 40_000)
        try pair.exchange()
        #expect(drains() == 1)
        #expect(pair.client.notifyDrained(streamID: stream, atOrBelow: 10_000))
        try pair.exchange()
        #expect(drains() == 1)
    }

    @Test("never credits more than was received")
    func creditIsBounded() throws {
        let pair = try CodecPair(server: Self.narrow)
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(10_000)])
        try pair.exchange()
        pair.server.consume(streamID: stream, byteCount: 1_000_000)
        try pair.exchange()
        try pair.client.submitData(streamID: stream, [pattern(100_000)])
        try pair.exchange()
        #expect(pair.serverEvents.body(of: stream).readableBytes <= 50_000)
    }
}
