// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import NIOEmbedded
import Testing

@testable import RPCTransport

@Suite("What a read of many messages leads to")
struct EarlyWriteTests {
    /// A server that answers each request with a head, and notes how much has been written whenever one ends.
    private final class Answering: ConnectionRole {
        let codec: HTTP2Codec
        let channel: EmbeddedChannel
        private(set) var handler: ConnectionHandler?
        /// Bytes written when each request ended.
        private(set) var written: [Int] = []
        private var taken: [ByteBuffer] = []
        private(set) var ending = "open"

        init(codec: HTTP2Codec, channel: EmbeddedChannel) {
            self.codec = codec
            self.channel = channel
        }

        var openCallCount: Int { 0 }

        func connectionBegan(_ connection: ConnectionHandler) { self.handler = connection }

        func handle(_ event: HTTP2Event) {
            guard case .headers(let block) = event, block.endStream else { return }
            let streamID = block.streamID
            self.written.append(self.take().reduce(0) { $0 + $1.readableBytes })
            try? self.codec.submitResponse(
                streamID: streamID,
                [HTTP2HeaderField(":status", "200")],
                endStream: true
            )
            self.handler?.setNeedsFlush()
        }

        /// Everything written so far.
        func take() -> [ByteBuffer] {
            while let buffer = try? self.channel.readOutbound(as: ByteBuffer.self) { self.taken.append(buffer) }
            return self.taken
        }

        func turnEnded() {}
        func sweep(now: ContinuousClock.Instant) {}
        func connectionIdled() {}
        func connectionOverdue() {}
        func connectionEnded(reason: String) { self.ending = reason }
    }

    /// Sends requests in one read, and returns what was written when each was dealt with, and all responses.
    private func answer(requests: Int) throws -> (written: [Int], responses: [Int32]) {
        let server = try HTTP2Codec(role: .server, now: .now)
        let client = try HTTP2Codec(role: .client, now: .now)
        let channel = EmbeddedChannel()
        let role = Answering(codec: server, channel: channel)
        let handler = ConnectionHandler(
            codec: server,
            role: role,
            timing: ConnectionTiming(),
            traffic: nil,
            eventLoop: channel.eventLoop,
            now: .now
        )
        try channel.pipeline.syncOperations.addHandler(handler)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/peer")).wait()
        for _ in 0..<requests {
            let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "b")]
            _ = try client.submitRequest(fields.map { HTTP2HeaderField($0.0, $0.1) }, endStream: true)
        }
        var all = ByteBuffer()
        for buffer in client.takeOutput() { all.writeImmutableBuffer(buffer) }
        try channel.writeInbound(all)
        var responses: [Int32] = []
        for buffer in role.take() { try client.receive(buffer, now: .now) }
        for event in client.takeEvents() {
            if case .headers(let block) = event, block.endStream { responses.append(block.streamID) }
        }
        let written = role.written
        try #require(written.count == requests, "\(server.failure as Any), \(all.readableBytes) bytes, \(role.ending)")
        _ = try? channel.finish(acceptAlreadyClosed: true)
        return (written, responses)
    }

    @Test("the first answers are written while the rest of the read is dealt with")
    func early() throws {
        let (written, responses) = try self.answer(requests: 40)
        // What the connection begins with was written before the first request; after the 16th and the 32nd, answers were.
        #expect(Set(written[0..<16]).count == 1 && Set(written[16..<32]).count == 1 && Set(written[32..<40]).count == 1)
        #expect(written[0] < written[16] && written[16] < written[32])
        // In the same order, each once.
        #expect(responses == (0..<40).map { Int32(2 * $0 + 1) })
    }

    @Test("a few answers are written together, once the read is over")
    func together() throws {
        let (written, responses) = try self.answer(requests: 15)
        #expect(Set(written).count == 1 && responses.count == 15)
    }
}
