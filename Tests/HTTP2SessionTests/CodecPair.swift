// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

/// Two codecs joined in memory.
final class CodecPair {
    let client: HTTP2Codec
    let server: HTTP2Codec
    let now = ContinuousClock.now
    /// How many bytes go to the other end at once; nil delivers each turn's output whole.
    var splitBytes: Int?
    var clientEvents: [HTTP2Event] = []
    var serverEvents: [HTTP2Event] = []

    init(
        client: HTTP2CodecConfiguration = .defaults,
        server: HTTP2CodecConfiguration = .defaults,
        settled: Bool = true
    ) throws {
        self.client = try HTTP2Codec(role: .client, configuration: client, now: self.now)
        self.server = try HTTP2Codec(role: .server, configuration: server, now: self.now)
        if settled {
            try self.exchange()
            self.clientEvents = []
            self.serverEvents = []
        }
    }

    /// Carries bytes both ways until neither end has any.
    func exchange() throws {
        while true {
            let toServer = try self.deliver(from: self.client, to: self.server)
            self.serverEvents += self.server.takeEvents()
            let toClient = try self.deliver(from: self.server, to: self.client)
            self.clientEvents += self.client.takeEvents()
            #expect(self.client.checkInvariants() == nil)
            #expect(self.server.checkInvariants() == nil)
            if toServer == 0 && toClient == 0 { return }
        }
    }

    private func deliver(from: HTTP2Codec, to: HTTP2Codec) throws -> Int {
        var bytes = gathered(from.takeOutput())
        let count = bytes.readableBytes
        while bytes.readableBytes > 0 {
            let part = bytes.readSlice(length: min(self.splitBytes ?? .max, bytes.readableBytes))
            try to.receive(try #require(part), now: self.now)
        }
        return count
    }
}

let requestFields = [
    HTTP2HeaderField(":method", "POST"),
    HTTP2HeaderField(":scheme", "http"),
    HTTP2HeaderField(":path", "/test.Service/Method"),
    HTTP2HeaderField(":authority", "localhost"),
    HTTP2HeaderField("te", "trailers"),
    HTTP2HeaderField("content-type", "application/grpc"),
]

let responseFields = [HTTP2HeaderField(":status", "200"), HTTP2HeaderField("content-type", "application/grpc")]
let trailerFields = [HTTP2HeaderField("grpc-status", "0")]

func gathered(_ buffers: [ByteBuffer]) -> ByteBuffer {
    var all = ByteBuffer()
    for buffer in buffers { all.writeImmutableBuffer(buffer) }
    return all
}

/// Bytes whose value depends on their place, so that a lost or swapped piece shows.
func pattern(_ count: Int, seed: Int = 0) -> ByteBuffer {
    ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: ($0 + seed) &* 31 ^ ($0 >> 8)) })
}

extension [HTTP2Event] {
    /// All body bytes of a stream, in order.
    func body(of streamID: Int32) -> ByteBuffer {
        gathered(
            self.compactMap { event in
                if case .data(streamID, let bytes) = event { bytes } else { nil }
            }
        )
    }

    func blocks(of streamID: Int32) -> [HTTP2HeaderBlock] {
        self.compactMap { event in
            if case .headers(let block) = event, block.streamID == streamID { block } else { nil }
        }
    }

    func ends(of streamID: Int32) -> Int {
        self.count { event in
            switch event {
            case .endOfStream(streamID): true
            case .headers(let block): block.streamID == streamID && block.endStream
            default: false
            }
        }
    }

    func closes(of streamID: Int32) -> [(code: HTTP2ErrorCode, origin: StreamCloseOrigin)] {
        self.compactMap { event in
            if case .streamClosed(streamID, let code, let origin) = event { (code, origin) } else { nil }
        }
    }
}

/// A small generator with a seed, for tests that must repeat.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

/// One frame by hand.
func frame(type: UInt8, flags: UInt8 = 0, streamID: UInt32 = 0, payload: [UInt8] = []) -> ByteBuffer {
    var buffer = ByteBuffer()
    buffer.writeInteger(UInt8(payload.count >> 16))
    buffer.writeInteger(UInt16(payload.count & 0xffff))
    buffer.writeInteger(type)
    buffer.writeInteger(flags)
    buffer.writeInteger(streamID)
    buffer.writeBytes(payload)
    return buffer
}
