// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import HTTP2Session

@Suite("The order of output")
struct OutputTests {
    /// A server with requests on the first odd streams, and a connection's window of 2^30 for it.
    private func server(requests: Int, _ configuration: HTTP2CodecConfiguration = .defaults) throws -> RawPeer {
        let peer = try RawPeer(.server, configuration)
        try peer.send(windowUpdate(0, 1 << 30), settings([4: 1 << 30]))
        for index in 0..<requests { try peer.send(headers(UInt32(2 * index + 1), flags: 5)) }
        peer.forget()
        return peer
    }

    @Test("is one frame of each stream in turn, so that no large body holds up a small one")
    func fairness() throws {
        let peer = try self.server(requests: 4)
        for streamID in [1, 3, 5] as [Int32] {
            try peer.codec.submitResponse(streamID: streamID, responseFields, endStream: false)
            try peer.codec.submitData(streamID: streamID, [pattern(200_000)], endStream: true)
        }
        try peer.codec.submitResponse(streamID: 7, responseFields, endStream: false)
        try peer.codec.submitData(streamID: 7, [pattern(100)])
        try peer.codec.submitTrailers(streamID: 7, trailerFields)
        peer.collect()
        let order = peer.frames.filter { $0.type == 0 }.map(\.streamID)
        // The small answer leaves in the first round, whole.
        #expect(Array(order.prefix(4)) == [1, 3, 5, 7])
        let end = try #require(peer.frames.firstIndex { $0.streamID == 7 && $0.flags & 1 == 1 })
        #expect(peer.frames[..<end].count { $0.type == 0 } == 4)
        // No stream is ever more than one frame ahead.
        var sent: [Int32: Int] = [1: 0, 3: 0, 5: 0]
        for streamID in order where streamID != 7 {
            sent[streamID, default: 0] += 1
            let counts = sent.values
            #expect((counts.max() ?? 0) - (counts.min() ?? 0) <= 1)
        }
        for streamID in [1, 3, 5] as [Int32] {
            #expect(peer.body(of: streamID) == Array(pattern(200_000).readableBytesView))
        }
    }

    @Test("lets a stream join the turns of those that are sending")
    func latecomer() throws {
        let peer = try self.server(requests: 2)
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: false)
        try peer.codec.submitData(streamID: 1, [pattern(400_000)], endStream: true)
        _ = peer.codec.takeOutput(limitBytes: 50_000)
        try peer.codec.submitResponse(streamID: 3, responseFields, endStream: true)
        let next = sentFrames(peer.codec.takeOutput(limitBytes: 40_000))
        #expect(next.contains { $0.streamID == 3 && $0.flags & 1 == 1 })
        #expect(next.contains { $0.streamID == 1 })
    }

    @Test("begins with the connection's frames, whatever streams have to send")
    func controlsFirst() throws {
        let peer = try self.server(requests: 1)
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: false)
        try peer.codec.submitData(streamID: 1, [pattern(400_000)], endStream: true)
        _ = peer.codec.takeOutput(limitBytes: 20_000)
        try peer.codec.receive(frame(type: 6, payload: [1, 2, 3, 4, 5, 6, 7, 8]), now: peer.now)
        let next = sentFrames(peer.codec.takeOutput(limitBytes: 1))
        #expect(next == [SentFrame(type: 6, flags: 1, streamID: 0, payload: [1, 2, 3, 4, 5, 6, 7, 8])])
        #expect(peer.codec.outputIsPending)
    }

    @Test("puts the small frames of many streams into one buffer")
    func coalescing() throws {
        let peer = try self.server(requests: 64)
        for index in 0..<64 {
            let streamID = Int32(2 * index + 1)
            try peer.codec.submitResponse(streamID: streamID, responseFields, endStream: false)
            try peer.codec.submitData(streamID: streamID, pattern(64, seed: index))
            try peer.codec.submitTrailers(streamID: streamID, trailerFields)
        }
        let output = peer.codec.takeOutput()
        #expect(output.count == 1)
        let frames = sentFrames(output)
        // Head, body and trailers of each stream lie side by side.
        try #require(frames.count == 3 * 64)
        for (index, sent) in frames.enumerated() {
            let type: UInt8 = index % 3 == 1 ? 0 : 1
            #expect(sent.type == type)
            #expect(sent.streamID == Int32(2 * (index / 3) + 1))
            if type == 0 { #expect(sent.payload == Array(pattern(64, seed: index / 3).readableBytesView)) }
        }
    }

    @Test("copies pieces up to the configured size and passes on larger ones", arguments: [0, 100, 4_096])
    func coalescedPieces(limit: Int) throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.coalesceBytes = limit
        let peer = try self.server(requests: 1, configuration)
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: false)
        let pieces = [pattern(limit), pattern(limit + 1), pattern(limit / 2), pattern(2 * limit + 2)]
        try peer.codec.submitData(streamID: 1, pieces, endStream: true)
        let output = peer.codec.takeOutput()
        let addresses = output.map { $0.withUnsafeReadableBytes { $0.baseAddress } }
        for piece in pieces where piece.readableBytes > 0 {
            let isPassedOn = addresses.contains(piece.withUnsafeReadableBytes { $0.baseAddress })
            #expect(isPassedOn == (piece.readableBytes > limit))
        }
        let body = sentFrames(output).filter { $0.type == 0 }.flatMap(\.payload)
        #expect(body == Array(gathered(pieces).readableBytesView))
    }

    @Test("resumes all streams that the connection's window had stopped, in their order")
    func connectionWindow() throws {
        let peer = try RawPeer()
        for streamID in [1, 3, 5] as [Int32] {
            try peer.send(headers(UInt32(streamID), flags: 5))
            try peer.codec.submitResponse(streamID: streamID, responseFields, endStream: false)
            try peer.codec.submitData(streamID: streamID, [pattern(60_000)], endStream: true)
        }
        peer.collect()
        #expect(peer.frames.filter { $0.type == 0 }.reduce(0) { $0 + $1.payload.count } == 65_535)
        for _ in 0..<40 { try peer.send(windowUpdate(0, 3_000)) }
        for streamID in [1, 3, 5] as [Int32] {
            #expect(peer.body(of: streamID) == Array(pattern(60_000).readableBytesView))
            #expect(peer.events.closes(of: streamID).map(\.code) == [.noError])
        }
    }

    @Test("sends requests in the order of their streams, up to the server's limit")
    func requests() throws {
        let peer = try RawPeer(.client)
        try peer.send(settings([3: 2]))
        let streams = try (0..<5).map { _ in try peer.codec.submitRequest(requestFields, endStream: true) }
        peer.collect()
        #expect(peer.frames.filter { $0.type == 1 }.map(\.streamID) == [1, 3])
        // One that waits is given up; nothing is sent for it.
        peer.codec.reset(streamID: streams[2], code: .cancel)
        try peer.send(headers(1, RawPeer.response, flags: 5), headers(3, RawPeer.response, flags: 5))
        #expect(peer.frames.filter { $0.type == 1 }.map(\.streamID) == [1, 3, 7, 9])
        #expect(peer.frames.allSatisfy { $0.streamID != streams[2] })
        #expect(peer.events.closes(of: streams[2]).map(\.origin) == [.local])
    }

    @Test("keeps nothing of streams that were reset while they waited for the window", arguments: [true, false])
    func resetWhileBlocked(readsOutput: Bool) throws {
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.resetBurst = 1_000_000
        let peer = try RawPeer(.server, configuration)
        try peer.send(settings([4: 1 << 20]), headers(1, flags: 5))
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: false)
        try peer.codec.submitData(streamID: 1, [pattern(70_000)], endStream: true)
        peer.collect()
        // The connection's window is used up: every further body waits, until its stream is reset.
        for index in 1...2_000 {
            let streamID = UInt32(2 * index + 1)
            try peer.codec.receive(headers(streamID, flags: 5), now: peer.now)
            try peer.codec.submitResponse(streamID: Int32(streamID), responseFields, endStream: false)
            try peer.codec.submitData(streamID: Int32(streamID), [pattern(1_000)], endStream: true)
            // A peer that does not read keeps the output where it is.
            if readsOutput { _ = peer.codec.takeOutput() }
            try peer.codec.receive(resetFrame(streamID, 8), now: peer.now)
            _ = peer.codec.takeEvents()
        }
        #expect(peer.codec.openStreamCount == 1)
        #expect(peer.codec.queuedBytes == 70_000 - 65_535)
        #expect(peer.codec.blockedSenders.count + peer.codec.senders.count < 200)
        #expect(peer.codec.checkInvariants() == nil)
        try peer.send(windowUpdate(0, 10_000))
        #expect(peer.events.closes(of: 1).map(\.code) == [.noError])
        #expect(peer.codec.blockedSenders.allSatisfy { $0.queuedBytes == 0 })
    }

    @Test("ends with the GOAWAY that ends the connection")
    func nothingAfterTheEnd() throws {
        let peer = try self.server(requests: 1)
        peer.codec.ping(opaque: 7)
        peer.codec.terminate(code: .internalError)
        peer.codec.ping(opaque: 8)
        try peer.codec.submitResponse(streamID: 1, responseFields, endStream: true)
        peer.collect()
        #expect(peer.frames.map(\.type) == [6, 7])
        #expect(peer.codec.isFinished)
    }

    @Test("splits a long header block into frames that every peer takes")
    func longBlock() throws {
        let pair = try CodecPair(server: HTTP2CodecConfiguration(maxHeaderListBytes: 1 << 20))
        let long = requestFields + (0..<5).map { HTTP2HeaderField("x-\($0)", String(repeating: "~", count: 9_000)) }
        let stream = try pair.client.submitRequest(long, endStream: true)
        let output = pair.client.takeOutput()
        let frames = sentFrames(output)
        #expect(frames.count >= 3)
        let types: [UInt8] = [1] + Array(repeating: 9, count: frames.count - 1)
        #expect(frames.map(\.type) == types)
        let flags: [UInt8] = [1] + Array(repeating: 0, count: frames.count - 2) + [4]
        #expect(frames.map(\.flags) == flags)
        #expect(frames.allSatisfy { $0.payload.count <= 1 << 14 })
        for piece in output { try pair.server.receive(piece, now: pair.now) }
        #expect(pair.server.takeEvents().blocks(of: stream).first?.fields == long)
    }

    @Test("follows the table that the peer allows, in blocks that are kept as in others", arguments: [0, 60, 4_096])
    func tableSize(bytes: UInt32) throws {
        let peer = try RawPeer()
        let decoder = try ReferenceDecoder()
        let block = try #require(try peer.codec.store(responseFields + [HTTP2HeaderField("x-kept", "value")]))
        var streamID: UInt32 = 1
        func answer() throws -> [HTTP2HeaderField]? {
            defer { streamID += 2 }
            peer.forget()
            try peer.send(headers(streamID, flags: 5))
            try peer.codec.submitResponse(streamID: Int32(streamID), block, endStream: true)
            peer.collect()
            let frame = try #require(peer.frames.first { $0.type == 1 })
            return decoder.decode(frame.payload)
        }
        let expected = responseFields + [HTTP2HeaderField("x-kept", "value")]
        for _ in 0..<3 { #expect(try answer() == expected) }
        try peer.send(settings([1: bytes]))
        for _ in 0..<3 { #expect(try answer() == expected) }
        try peer.send(settings([1: 0, 1: 4_096]))
        for _ in 0..<3 { #expect(try answer() == expected) }
    }
}
