// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("A request and its answer")
struct ExchangeTests {
    @Test(
        "survive every way of cutting the bytes",
        arguments: [nil, 1, 2, 3, 5, 8, 9, 10, 13, 64, 1_000] as [Int?]
    )
    func roundTrip(split: Int?) throws {
        let pair = try CodecPair(settled: false)
        pair.splitBytes = split
        let request = pattern(20_000)
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [request], endStream: true)
        try pair.exchange()

        #expect(pair.serverEvents.blocks(of: stream).map(\.kind) == [.request])
        #expect(pair.serverEvents.blocks(of: stream).first?.fields == requestFields)
        #expect(pair.serverEvents.body(of: stream) == request)
        #expect(pair.serverEvents.ends(of: stream) == 1)

        try pair.server.submitResponse(streamID: stream, responseFields, endStream: false)
        let pieces = [pattern(5, seed: 1), pattern(9_000, seed: 2), pattern(0), pattern(3, seed: 3)]
        try pair.server.submitData(streamID: stream, pieces)
        try pair.server.submitTrailers(streamID: stream, trailerFields)
        try pair.exchange()

        let blocks = pair.clientEvents.blocks(of: stream)
        #expect(blocks.map(\.kind) == [.response, .trailers])
        #expect(blocks.map(\.endStream) == [false, true])
        #expect(blocks.last?.fields == trailerFields)
        #expect(pair.clientEvents.body(of: stream) == gathered(pieces))
        #expect(pair.clientEvents.closes(of: stream).map(\.code) == [.noError])
        #expect(pair.serverEvents.closes(of: stream).map(\.code) == [.noError])
        #expect(pair.client.openStreamCount == 0)
        #expect(pair.server.openStreamCount == 0)
    }

    @Test("can be headers alone")
    func headersOnly() throws {
        let pair = try CodecPair()
        let stream = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.exchange()
        #expect(pair.serverEvents.blocks(of: stream).map(\.endStream) == [true])
        try pair.server.submitResponse(streamID: stream, responseFields + trailerFields, endStream: true)
        try pair.exchange()
        #expect(pair.clientEvents.blocks(of: stream).map(\.endStream) == [true])
        #expect(pair.clientEvents.closes(of: stream).count == 1)
    }

    @Test("pass on large pieces without copying them and without empty frames before late trailers")
    func zeroCopyAndLateTrailers() throws {
        let pair = try CodecPair()
        let stream = try pair.client.submitRequest(requestFields, endStream: true)
        try pair.exchange()
        let piece = pattern(10_000)
        let address = piece.withUnsafeReadableBytes { $0.baseAddress }
        try pair.server.submitResponse(streamID: stream, responseFields, endStream: false)
        try pair.server.submitData(streamID: stream, [pattern(5), piece])
        let output = pair.server.takeOutput()
        #expect(output.contains { $0.withUnsafeReadableBytes { $0.baseAddress } == address })
        for buffer in output { try pair.client.receive(buffer, now: pair.now) }

        // The stream idles now; trailers alone must wake it.
        #expect(pair.server.takeOutput().isEmpty)
        try pair.server.submitTrailers(streamID: stream, trailerFields)
        let trailers = gathered(pair.server.takeOutput())
        #expect(trailers.getInteger(at: 3, as: UInt8.self) == 1, "the first frame is HEADERS, not an empty DATA")
        try pair.client.receive(trailers, now: pair.now)
        let events = pair.client.takeEvents()
        #expect(events.body(of: stream).readableBytes == 10_005)
        #expect(events.blocks(of: stream).map(\.kind) == [.response, .trailers])
    }

    @Test("use frames above 16 KiB when both ends allow them")
    func largeFrames() throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.maxFrameBytes = 1 << 18
        let pair = try CodecPair(client: configuration, server: configuration)
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(200_000)], endStream: true)
        let output = pair.client.takeOutput()
        #expect(output.count == 2, "frame header with the request's headers, then the piece itself")
        #expect(output.last?.readableBytes == 200_000)
    }

    @Test("hold back output beyond the mark and continue later")
    func boundedOutput() throws {
        let pair = try CodecPair()
        let stream = try pair.client.submitRequest(requestFields, endStream: false)
        try pair.client.submitData(streamID: stream, [pattern(300_000)], endStream: true)
        var total = 0
        var turns = 0
        repeat {
            let output = gathered(pair.client.takeOutput(limitBytes: 32 << 10))
            #expect(output.readableBytes <= (32 << 10) + (16 << 10) + 9)
            total += output.readableBytes
            turns += 1
            try pair.server.receive(output, now: pair.now)
        } while pair.client.outputIsPending
        #expect(turns >= 300_000 / (48 << 10))
        #expect(total > 300_000)
        #expect(pair.server.takeEvents().body(of: stream) == pattern(300_000))
    }

    @Test("run many at once on one connection")
    func manyStreams() throws {
        let pair = try CodecPair()
        var streams: [Int32] = []
        for index in 0..<100 {
            let stream = try pair.client.submitRequest(requestFields, endStream: false)
            try pair.client.submitData(streamID: stream, [pattern(100 + index, seed: index)], endStream: true)
            streams.append(stream)
        }
        try pair.exchange()
        for (index, stream) in streams.enumerated() {
            #expect(pair.serverEvents.body(of: stream) == pattern(100 + index, seed: index))
        }
        #expect(pair.server.openStreamCount == 100)
    }

    @Test("refuse invalid fields before anything is sent")
    func invalidFields() throws {
        let pair = try CodecPair()
        for field in [
            HTTP2HeaderField("Upper", "x"), HTTP2HeaderField("", "x"), HTTP2HeaderField("a b", "x"),
            HTTP2HeaderField("a", "line\nbreak"), HTTP2HeaderField("a", " space"), HTTP2HeaderField(":", "x"),
        ] {
            #expect(throws: HTTP2CodecError.self) {
                try pair.client.submitRequest(requestFields + [field], endStream: true)
            }
        }
        #expect(pair.client.takeOutput().isEmpty)
        #expect(pair.client.openStreamCount == 0)
    }

    @Test("answer pings and report round trips")
    func pings() throws {
        let pair = try CodecPair()
        pair.client.ping(opaque: 0x0102_0304_0506_0708)
        try pair.exchange()
        guard case .ping(0x0102_0304_0506_0708) = pair.serverEvents.first else {
            Issue.record("the server saw \(pair.serverEvents)")
            return
        }
        guard case .pingAcknowledged(0x0102_0304_0506_0708) = pair.clientEvents.first else {
            Issue.record("the client saw \(pair.clientEvents)")
            return
        }
    }

    @Test("name the value that is out of range")
    func configurationRanges() {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.maxFrameBytes = 100
        let error = #expect(throws: HTTP2CodecError.self) { try configuration.validate() }
        #expect(error?.message.contains("maxFrameBytes is 100") == true)
    }
}
