// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import HTTP2Session

@Suite("Memory that is used again")
struct ReuseTests {
    /// What an object keeps, by name.
    private func fields(of stream: CodecStream) -> [String: String] {
        var fields: [String: String] = [:]
        for child in Mirror(reflecting: stream).children { fields[child.label ?? ""] = "\(child.value)" }
        return fields
    }

    @Test("a stream that is made a new one keeps nothing of the old one")
    func renewed() {
        let old = CodecStream(id: 1, sendWindow: SendWindow(available: 1), receiveWindow: ReceiveWindow(size: 1))
        for _ in 0..<3 { old.append(pattern(10)) }
        _ = old.take(15) { _ in }
        old.bodyEnd = .endStream
        old.headersSubmitted = true
        old.head = .fields(responseFields)
        old.headWasSent = true
        old.isQueued = true
        old.isBlocked = true
        old.isEnded = true
        old.expectedBytes = 7
        old.receivedBytes = 7
        old.anyBlockSeen = true
        old.drainMark = 7
        old.unconsumedBytes = 7
        old.peerEnded = true
        old.firstBlockSeen = true
        old.resetAfterEnd = .noError
        old.closeOrigin = .peer
        let new = CodecStream(id: 3, sendWindow: SendWindow(available: 2), receiveWindow: ReceiveWindow(size: 2))
        // Each field differs, or the comparison below would not see that one is forgotten.
        let unchanged = self.fields(of: old).filter { self.fields(of: new)[$0.key] == $0.value }
        #expect(unchanged.isEmpty, "set these fields above: \(unchanged.keys.sorted())")
        old.renew(id: 3, sendWindow: SendWindow(available: 2), receiveWindow: ReceiveWindow(size: 2))
        #expect(self.fields(of: old) == self.fields(of: new))
    }

    @Test("output that is still in use is never written over by the next one")
    func output() throws {
        let peer = try RawPeer()
        var kept: [(buffer: ByteBuffer, bytes: [UInt8])] = []
        for index in 0..<40 {
            let streamID = Int32(2 * index + 1)
            try peer.send(headers(UInt32(streamID), flags: 5))
            try peer.codec.submitResponse(streamID: streamID, responseFields, endStream: false)
            try peer.codec.submitData(streamID: streamID, [pattern(100 * index, seed: index)], endStream: true)
            var list: [ByteBuffer] = []
            peer.codec.takeOutput(limitBytes: .max, into: &list)
            // Some buffers are let go of, and their memory may be used again.
            if index % 3 > 0 { kept += list.map { ($0, Array($0.readableBytesView)) } }
            #expect(peer.codec.checkInvariants() == nil)
        }
        #expect(kept.count > 20)
        for (buffer, bytes) in kept { #expect(Array(buffer.readableBytesView) == bytes) }
    }

    @Test("streams that are reset, refused or ended leave nothing to those that follow in their objects")
    func streams() throws {
        let pair = try CodecPair()
        for round in 0..<60 {
            let stream = try pair.client.submitRequest(requestFields, endStream: false)
            try pair.client.submitData(streamID: stream, [pattern(300, seed: round)], endStream: round % 4 != 1)
            try pair.exchange()
            #expect(pair.serverEvents.body(of: stream) == pattern(300, seed: round))
            switch round % 4 {
            case 0, 1:
                try pair.server.submitResponse(streamID: stream, responseFields, endStream: false)
                try pair.server.submitData(streamID: stream, [pattern(500, seed: round)])
                try pair.server.submitTrailers(streamID: stream, trailerFields)
                if round % 4 == 1 { pair.server.resetAfterEnd(streamID: stream, code: .noError) }
            case 2:
                // Its output waits when it ends.
                try pair.server.submitResponse(streamID: stream, responseFields, endStream: false)
                try pair.server.submitData(streamID: stream, [pattern(200)])
                pair.server.reset(streamID: stream, code: .internalError)
            default:
                pair.client.reset(streamID: stream, code: .cancel)
            }
            try pair.exchange()
            let body = pair.clientEvents.body(of: stream)
            #expect(body == (round % 4 < 2 ? pattern(500, seed: round) : ByteBuffer()))
            #expect(pair.client.openStreamCount == 0 && pair.server.openStreamCount == 0)
            #expect(pair.client.queuedBytes == 0 && pair.server.queuedBytes == 0)
        }
        #expect((1...4).contains(pair.client.endedStreams.count) && (1...4).contains(pair.server.endedStreams.count))
    }
}
