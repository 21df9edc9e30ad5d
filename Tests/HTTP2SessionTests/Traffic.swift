// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore

/// Frames by chance, most of them legal at the time they come.
struct Traffic {
    private let isOfClient: Bool
    private var generator: SplitMix64
    private var nextStreamID: Int32 = 1
    /// Streams that this peer may still send on, and those that it ended.
    private var open: [Int32] = []
    private var ended: [Int32] = []
    private var hasHead: Set<Int32> = []

    /// Creates the traffic of a client to a server, or the other way round.
    init(isOfClient: Bool, seed: UInt64) {
        self.isOfClient = isOfClient
        self.generator = SplitMix64(state: seed)
        if !isOfClient { self.open = Reply.requests.indices.map { Int32(2 * $0 + 1) } }
    }

    private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self.generator) < percent }

    private mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[Int.random(in: 0..<elements.count, using: &self.generator)]
    }

    /// What comes before all other frames.
    mutating func opening() -> [UInt8] {
        var bytes: [UInt8] = self.isOfClient ? Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) : []
        let first: ByteBuffer =
            switch Int.random(in: 0..<4, using: &self.generator) {
            case 0: frame(type: 4)
            case 1: settings([1: 100, 3: 3, 4: 2_000, 6: 10_000])
            case 2: settings([4: 200_000, 5: 20_000])
            default: settings([0x99: 7, 9: 1, 4: 0])
            }
        bytes += Array(first.readableBytesView)
        if self.chance(85) { bytes += Array(frame(type: 4, flags: 1).readableBytesView) }
        if self.chance(80) { bytes += Array(windowUpdate(0, 1 << 28).readableBytesView) }
        return bytes
    }

    /// The next frames: usually one.
    mutating func next() -> [UInt8] {
        let buffers: [ByteBuffer]
        switch Int.random(in: 0..<100, using: &self.generator) {
        case 0..<28: buffers = self.head()
        case 28..<58: buffers = [self.body()]
        case 58..<64: buffers = self.trailers()
        case 64..<67:
            let streamID = self.known()
            self.end(streamID)
            buffers = [resetFrame(UInt32(streamID), self.pick([0, 7, 8, 99]))]
        case 67..<70: buffers = [self.body()]
        case 70..<80: buffers = [windowUpdate(self.chance(40) ? 0 : UInt32(self.known()), self.increment())]
        case 80..<85: buffers = [self.settingsFrame()]
        case 85..<90:
            let payload = (0..<8).map { _ in UInt8.random(in: 0...255, using: &self.generator) }
            buffers = [frame(type: 6, flags: self.chance(30) ? 1 : 0, payload: payload)]
        case 90..<93: buffers = [self.priority()]
        case 93..<97:
            let payload = Array(repeating: UInt8(0x55), count: self.pick([0, 3, 200]))
            buffers = [frame(type: self.pick([10, 11, 0x20, 0xff]), flags: 0xff, streamID: 1, payload: payload)]
        case 97: buffers = [self.goAway()]
        case 98: buffers = [self.nonsense()]
        default: buffers = [self.body()]
        }
        return buffers.flatMap { Array($0.readableBytesView) }
    }

    /// A stream that the other end has heard of.
    private mutating func known() -> Int32 {
        let streams = self.open + self.ended
        return streams.isEmpty ? 1 : self.pick(streams)
    }

    private mutating func increment() -> UInt32 {
        self.pick([1, 100, 70_000, self.chance(5) ? 0x7fff_ffff : 2_000, self.chance(3) ? 0 : 5])
    }

    // MARK: - Blocks

    private mutating func head() -> [ByteBuffer] {
        var block: [UInt8] = []
        if self.chance(2) { block += self.pick([[0x20], [0x3f, 0xe1, 0x1f], [0x3f, 0x09]]) }
        let streamID: Int32
        if self.isOfClient {
            streamID = self.nextStreamID
            self.nextStreamID += self.chance(5) ? 4 : 2
            block += self.request()
        } else {
            let waiting = self.open.filter { !self.hasHead.contains($0) }
            streamID = waiting.isEmpty || self.chance(3) ? self.known() : self.pick(waiting)
            block += self.response(streamID)
        }
        for _ in 0..<self.pick([0, 0, 1, 3]) { block += self.field() }
        let endStream = self.chance(25)
        if self.isOfClient { self.open.append(streamID) }
        if endStream { self.end(streamID) }
        return self.blockFrames(streamID, block, endStream: endStream)
    }

    private mutating func request() -> [UInt8] {
        switch Int.random(in: 0..<40, using: &self.generator) {
        case 0: [0x83, 0x86, 0x84]
        case 1: [0x83, 0x84, 0x86, 0x01, 1, 0x61, 0x84]
        case 2: [0x83, 0x86] + literal(":path", "x") + literal(":authority", "a")
        case 3: literal(":method", "OPTIONS") + [0x87] + literal(":path", "*") + literal("host", "a")
        case 4: literal(":method", "CONNECT") + literal(":authority", "a:1")
        case 5: literal("x-early", "1") + RawPeer.request
        case 6: RawPeer.request + literal(":status", "200")
        case 7: [0x83] + literal(":scheme", "HTTP") + [0x84] + literal(":authority", "a")
        case 8: [0x83] + literal(":scheme", "1x") + [0x84] + literal(":authority", "a")
        case 9: [0x83, 0x86, 0x84] + literal(":authority", "a b")
        case 10..<16:
            [0x83, 0x86, 0x84] + indexed(":authority", "host-\(Int.random(in: 0..<3, using: &self.generator))")
        default: RawPeer.request
        }
    }

    private mutating func response(_ streamID: Int32) -> [UInt8] {
        switch Int.random(in: 0..<30, using: &self.generator) {
        case 0: return literal(":status", "101")
        case 1: return literal(":status", "20x")
        case 2: return literal("x-early", "1") + [0x88]
        case 3: return [0x88, 0x88]
        case 4: return [0x89]
        case 5: return [0x8b]
        case 6: return [0x88, 0x84]
        case 7: return []
        case 8..<12: return literal(":status", "103")
        default:
            self.hasHead.insert(streamID)
            return [0x88]
        }
    }

    private mutating func field() -> [UInt8] {
        switch Int.random(in: 0..<60, using: &self.generator) {
        case 0: return literal("connection", "close")
        case 1: return literal("X-Upper", "1")
        case 2: return literal("x-space", " v")
        case 3: return literal("x-bad", "a\u{1}b")
        case 4: return literal("x bad", "a")
        case 5: return literal("te", self.pick(["trailers", "Trailers", "gzip"]))
        case 6, 7: return literal("content-length", self.pick(["0", "10", "3000", "-1", "99999999999999999999", ""]))
        case 8: return literal("host", self.pick(["a", "b c"]))
        case 9: return literal("upgrade", "h2c")
        case 10: return [0x80 | UInt8.random(in: 1...61, using: &self.generator)]
        case 11: return [0x80 | UInt8.random(in: 62...70, using: &self.generator)]
        case 12..<24: return indexed("x-index-\(Int.random(in: 0..<4, using: &self.generator))", "v")
        // "grpc-status" and "0" in Huffman's code, as libnghttp2 would write them.
        case 24..<28: return [0x00, 0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x81, 0x07]
        default: return literal("x-plain", "\(Int.random(in: 0..<9, using: &self.generator))")
        }
    }

    private mutating func trailers() -> [ByteBuffer] {
        let streamID = self.chance(98) && !self.open.isEmpty ? self.pick(self.open) : self.known()
        var block: [UInt8] = []
        for _ in 0..<self.pick([1, 2]) { block += self.field() }
        if self.chance(4) { block += [0x84] }
        let endStream = self.chance(92)
        if endStream { self.end(streamID) }
        return self.blockFrames(streamID, block, endStream: endStream)
    }

    /// A block in one frame or several, with padding and a priority at times.
    private mutating func blockFrames(_ streamID: Int32, _ block: [UInt8], endStream: Bool) -> [ByteBuffer] {
        var flags: UInt8 = endStream ? 1 : 0
        var before: [UInt8] = []
        var after: [UInt8] = []
        if self.chance(10) {
            flags |= 8
            let padding = self.pick([0, 1, 20])
            before = [UInt8(padding)]
            after = Array(repeating: 0, count: padding)
        }
        if self.chance(10) {
            flags |= 0x20
            before += [0, 0, 0, self.chance(2) ? UInt8(truncatingIfNeeded: streamID) : 0, 16]
        }
        let parts = self.chance(12) ? self.pick([2, 3, 9]) : 1
        let cuts = (1..<parts).map { _ in Int.random(in: 0...block.count, using: &self.generator) }.sorted()
        var frames: [ByteBuffer] = []
        var start = 0
        for end in cuts + [block.count] {
            let isLast = frames.count == cuts.count
            let piece = Array(block[start..<end])
            start = end
            if frames.isEmpty {
                let payload = before + piece + after
                frames.append(
                    frame(type: 1, flags: flags | (isLast ? 4 : 0), streamID: UInt32(streamID), payload: payload)
                )
            } else {
                frames.append(frame(type: 9, flags: isLast ? 4 : 0, streamID: UInt32(streamID), payload: piece))
            }
        }
        return frames
    }

    private mutating func end(_ streamID: Int32) {
        self.open.removeAll { $0 == streamID }
        self.ended.append(streamID)
    }

    // MARK: - Other frames

    private mutating func body() -> ByteBuffer {
        var streams = self.open
        if !self.isOfClient { streams.removeAll { !self.hasHead.contains($0) } }
        let streamID = streams.isEmpty || self.chance(2) ? self.known() : self.pick(streams)
        let count = self.pick([0, 1, 10, 700, 3_000, 16_000])
        var payload = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
        var flags: UInt8 = 0
        if self.chance(12) {
            flags |= 8
            let padding = min(255, self.pick([0, 1, 255]))
            payload = [UInt8(padding)] + payload + Array(repeating: 0, count: padding)
        }
        if self.chance(15) {
            flags |= 1
            self.end(streamID)
        }
        return data(UInt32(streamID), payload, flags: flags)
    }

    private mutating func settingsFrame() -> ByteBuffer {
        if self.chance(4) { return frame(type: 4, flags: 1) }
        var payload: [UInt8] = []
        for number in [1, 2, 3, 4, 5, 6, 8, 9, 0x1234] as [UInt16] where self.chance(20) {
            let value: UInt32
            switch number {
            case 1: value = self.pick([0, 64, 4_096, 100_000])
            case 2: value = self.chance(96) ? 0 : self.pick([1, 2])
            case 3: value = self.pick([0, 1, 5, 100])
            case 4:
                value = self.pick([
                    0, 100, 65_535, self.chance(2) ? 0x8000_0000 : self.chance(5) ? 0x7fff_ffff : 300_000,
                ])
            case 5: value = self.pick([16_384, 20_000, self.chance(10) ? 16_383 : 1 << 20])
            case 8: value = self.chance(96) ? 0 : self.pick([1, 2])
            case 9: value = self.chance(96) ? 0 : self.pick([1, 2])
            default: value = self.pick([0, 5_000])
            }
            payload += [UInt8(number >> 8), UInt8(number & 0xff)] + bigEndian(value)
        }
        return frame(type: 4, payload: payload)
    }

    private mutating func priority() -> ByteBuffer {
        let streamID = self.known()
        let dependency = self.chance(3) ? UInt32(streamID) : 0
        return frame(type: 2, streamID: UInt32(streamID), payload: bigEndian(dependency) + [16])
    }

    private mutating func goAway() -> ByteBuffer {
        let last: UInt32 = self.isOfClient ? 0 : self.pick([0x7fff_ffff, 1, 5, self.chance(10) ? 2 : 9])
        let debug = Array(repeating: UInt8(0x41), count: self.pick([0, 10, 500]))
        return frame(type: 7, payload: bigEndian(last) + bigEndian(self.pick([0, 2])) + debug)
    }

    /// A frame that is rarely right.
    private mutating func nonsense() -> ByteBuffer {
        let payload = (0..<self.pick([0, 4, 5, 8, 12])).map { _ in UInt8.random(in: 0...255, using: &self.generator) }
        let streamID = self.chance(40) ? 0 : UInt32.random(in: 0...12, using: &self.generator)
        let type = UInt8.random(in: 0...9, using: &self.generator)
        let flags = UInt8.random(in: 0...255, using: &self.generator) & self.pick([0, 1, 0xff])
        return frame(type: type, flags: flags, streamID: streamID, payload: payload)
    }

    // MARK: - Bytes

    /// A whole connection's bytes, damaged at times, and where to cut them.
    mutating func connection() -> (bytes: [UInt8], cuts: [Int]) {
        var bytes = self.opening()
        let frames = Int.random(in: 1...40, using: &self.generator)
        for _ in 0..<frames { bytes += self.next() }
        if self.chance(35) {
            for _ in 0..<Int.random(in: 1...3, using: &self.generator) {
                // Headers of frames are a small part of the bytes; damage near the start hits them more often.
                let end = self.chance(50) ? min(bytes.count, 400) : bytes.count
                let place = Int.random(in: 0..<end, using: &self.generator)
                switch Int.random(in: 0..<4, using: &self.generator) {
                case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &self.generator)
                case 1: bytes[place] = UInt8.random(in: 0...255, using: &self.generator)
                case 2: bytes.insert(UInt8.random(in: 0...255, using: &self.generator), at: place)
                default: bytes.removeSubrange(place..<min(bytes.count, place + 2))
                }
            }
        }
        let count = self.pick([0, 3, 30])
        let cuts = (0..<count).map { _ in Int.random(in: 0...bytes.count, using: &self.generator) }.sorted()
        return (bytes, cuts + [bytes.count])
    }
}
