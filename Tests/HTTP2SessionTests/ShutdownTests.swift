// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("Resets and GOAWAY")
struct ShutdownTests {
    @Test("a reset closes the stream once on each side and names its origin")
    func reset() throws {
        let pair = try CodecPair()
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.exchange()
        pair.client.reset(streamID: stream, code: .cancel)
        pair.client.reset(streamID: stream, code: .internalError)
        try pair.exchange()
        #expect(pair.clientEvents.closes(of: stream).map(\.origin) == [.local])
        #expect(pair.serverEvents.closes(of: stream).map(\.origin) == [.peer])
        #expect(pair.serverEvents.closes(of: stream).map(\.code) == [.cancel])
        // Commands for a closed stream are swallowed.
        try pair.server.submitResponse(streamID: stream, responseFields, endStream: true)
        try pair.server.submitData(streamID: stream, [pattern(10)])
        pair.server.consume(streamID: stream, byteCount: 10)
        #expect(pair.server.takeOutput().isEmpty)
    }

    @Test("a drain in two steps finishes the streams in flight and refuses the rest")
    func graceful() throws {
        let pair = try CodecPair()
        let first = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.exchange()
        pair.server.announceShutdown()
        let notice = gathered(pair.server.takeOutput())
        // A request that crosses the notice is still served.
        let second = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.server.receive(gathered(pair.client.takeOutput()), now: pair.now)
        #expect(pair.server.takeEvents().blocks(of: second).count == 1)
        try pair.client.receive(notice, now: pair.now)
        guard case .goAway(Int32.max, .noError, _) = pair.client.takeEvents().first else {
            Issue.record("no notice")
            return
        }
        #expect(!pair.client.acceptsNewStreams)
        #expect(pair.client.availableStreams == 0)
        #expect(throws: HTTP2CodecError.self) {
            try pair.client.submitRequest(requestFields, endStream: true)
        }

        pair.server.goAway()
        try pair.exchange()
        #expect(!pair.server.isFinished)
        for stream in [first, second] {
            try pair.server.submitResponse(streamID: stream, responseFields, endStream: true)
        }
        try pair.exchange()
        #expect(pair.clientEvents.closes(of: first).map(\.code) == [.noError])
        #expect(pair.clientEvents.closes(of: second).map(\.code) == [.noError])
        #expect(pair.server.isFinished)
        #expect(pair.client.isFinished)
    }

    @Test("streams above the last one of a GOAWAY were never processed")
    func aboveLast() throws {
        let pair = try CodecPair()
        let first = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.exchange()
        pair.server.goAway()
        let goAway = gathered(pair.server.takeOutput())
        let second = try pair.client.submitRequest(requestFields, endStream: true)
        let crossing = gathered(pair.client.takeOutput())
        try pair.client.receive(goAway, now: pair.now)
        try pair.server.receive(crossing, now: pair.now)
        #expect(pair.server.takeEvents().blocks(of: second).isEmpty)
        let closes = pair.client.takeEvents().closes(of: second)
        #expect(closes.map(\.origin) == [.neverProcessed])
        #expect(pair.client.isOpen(streamID: first))
    }

    @Test("a request that was queued when GOAWAY came is reported as never processed")
    func queuedBehindGoAway() throws {
        let pair = try CodecPair()
        pair.server.announceShutdown()
        let stream = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.client.receive(gathered(pair.server.takeOutput()), now: pair.now)
        _ = pair.client.takeOutput()
        #expect(pair.client.takeEvents().closes(of: stream).map(\.origin) == [.neverSent])
        #expect(pair.client.openStreamCount == 0)
    }

    @Test("the client sees how many streams the server still accepts")
    func concurrency() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.maxConcurrentStreams = 3
        let pair = try CodecPair(server: configuration)
        #expect(pair.client.availableStreams == 3)
        let streams = try (0..<3).map { _ in try pair.client.submitRequest(requestFields, endStream: true) }
        #expect(pair.client.availableStreams == 0)
        #expect(pair.client.acceptsNewStreams)
        try pair.exchange()
        try pair.server.submitResponse(streamID: streams[0], responseFields, endStream: true)
        try pair.exchange()
        #expect(pair.client.availableStreams == 1)
    }
}
