// SPDX-License-Identifier: Apache-2.0

/// Makes new inputs out of old ones.
///
/// Besides flipping bits it knows where frames, JSON values, fields and opcodes begin, so that what it makes often passes
/// the first checks, and which numbers lie at the edges of types and limits. The same generator makes the same inputs.
public struct Mutator: Sendable {
    var random: SplitMix64
    /// Names that inputs of the target have, for further ones.
    let words: [[UInt8]]
    private let shape: InputShape

    private static let edges: [UInt64] = [
        0, 1, 2, 4, 5, 7, 8, 9, 0x7f, 0x80, 0xff, 0x100, 0x3fff, 0x4000, 0x4001, 0x7fff, 0xffff, 0x1_0000, 0xff_ffff,
        0x100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, .max,
    ]

    /// Creates a mutator.
    ///
    /// - Parameters:
    ///   - target: The target that the inputs are for.
    ///   - seed: Any number.
    public init(target: FuzzTarget, seed: UInt64) {
        self.random = SplitMix64(seed: seed)
        self.shape = target.shape
        self.words = target.shape == .json ? Self.words(of: Seeds.inputs(for: target).map(\.bytes)) : []
    }

    /// Makes an input.
    ///
    /// - Parameters:
    ///   - parent: An input to begin with.
    ///   - other: An input to take parts of.
    /// - Returns: A new input, at most ``FuzzTarget/maxInputBytes`` long.
    public mutating func mutate(_ parent: [UInt8], with other: [UInt8]) -> [UInt8] {
        var bytes = parent
        for _ in 0...self.random.below(4) {
            self.mutateOnce(&bytes, other)
        }
        if bytes.count > FuzzTarget.maxInputBytes { bytes.removeLast(bytes.count - FuzzTarget.maxInputBytes) }
        return bytes
    }

    private mutating func mutateOnce(_ bytes: inout [UInt8], _ other: [UInt8]) {
        switch self.shape {
        case .frames where self.random.below(2) == 0: self.mutateFrames(&bytes, other)
        case .json where self.random.below(4) != 0: self.mutateText(&bytes, other)
        case .fields where self.random.below(4) != 0: self.mutateFields(&bytes, other)
        case .pickle where self.random.below(4) != 0: self.mutatePickle(&bytes, other)
        default: self.mutateBytes(&bytes, other)
        }
    }

    // MARK: - Bytes

    mutating func mutateBytes(_ bytes: inout [UInt8], _ other: [UInt8]) {
        let count = bytes.count
        let place = self.random.below(count + 1)
        let length = 1 + self.random.below(self.random.once(in: 4) ? 200 : 8)
        switch self.random.below(11) {
        case 0 where count > 0:
            bytes[self.random.below(count)] ^= 1 << UInt8(self.random.below(8))
        case 1 where count > 0:
            bytes[self.random.below(count)] = UInt8(truncatingIfNeeded: self.random.next())
        case 2:
            // A number at an edge, in either byte order, over what is there.
            let width = [1, 2, 3, 4, 8][self.random.below(5)]
            let value = Self.edges[self.random.below(Self.edges.count)]
            let isBig = self.random.below(2) == 0
            for index in 0..<width where place + index < count {
                let shift = UInt64(isBig ? width - 1 - index : index) * 8
                bytes[place + index] = UInt8(truncatingIfNeeded: value >> shift)
            }
        case 3 where count > 0:
            let end = min(count, place + length)
            bytes.removeSubrange(place..<end)
        case 4:
            bytes.insert(contentsOf: bytes[place..<min(count, place + length)], at: place)
        case 5:
            let fill = UInt8(truncatingIfNeeded: self.random.next())
            let inserted = (0..<length).map { _ in self.random.below(2) == 0 ? fill : UInt8(self.random.below(256)) }
            bytes.insert(contentsOf: inserted, at: place)
        case 6 where !other.isEmpty:
            let start = self.random.below(other.count)
            bytes.insert(contentsOf: other[start..<min(other.count, start + length)], at: place)
        case 7 where !other.isEmpty:
            // The front of one and the back of another.
            bytes.removeSubrange(place...)
            bytes.append(contentsOf: other[self.random.below(other.count)...])
        case 8:
            bytes.removeSubrange(place...)
        case 9 where count > 0:
            // A little more or less.
            let index = self.random.below(count)
            bytes[index] &+= UInt8(truncatingIfNeeded: self.random.below(9) - 4)
        case 10:
            // A varint, as protobuf and HPACK have them.
            var value = Self.edges[self.random.below(Self.edges.count)]
            var varint: [UInt8] = []
            while value >= 0x80 {
                varint.append(UInt8(truncatingIfNeeded: value) | 0x80)
                value >>= 7
            }
            varint.append(UInt8(value))
            bytes.insert(contentsOf: varint, at: place)
        default:
            bytes.append(UInt8(truncatingIfNeeded: self.random.next()))
        }
    }

    // MARK: - Frames

    /// Where the frames of an input begin and end.
    static func frames(in bytes: [UInt8]) -> [Range<Int>] {
        var start = min(2, bytes.count)
        if bytes[start...].starts(with: CodecInput.preface) { start += CodecInput.preface.count }
        var ranges: [Range<Int>] = []
        while let frame = WireFrame(bytes[start...]) {
            let end = min(bytes.count, start + WireFrame.headerBytes + frame.length)
            ranges.append(start..<end)
            start = end
        }
        return ranges
    }

    private mutating func mutateFrames(_ bytes: inout [UInt8], _ other: [UInt8]) {
        let frames = Self.frames(in: bytes)
        guard !frames.isEmpty else {
            bytes.append(contentsOf: self.newFrame())
            return
        }
        let frame = frames[self.random.below(frames.count)]
        switch self.random.below(10) {
        case 0:
            bytes.insert(contentsOf: self.newFrame(), at: frame.lowerBound)
        case 1:
            bytes.insert(contentsOf: self.newFrame(), at: frame.upperBound)
        case 2:
            for _ in 0...self.random.below(self.random.once(in: 8) ? 40 : 3) {
                bytes.insert(contentsOf: bytes[frame], at: frame.upperBound)
            }
        case 3:
            bytes.removeSubrange(frame)
        case 4:
            let second = frames[self.random.below(frames.count)]
            let moved = Array(bytes[second])
            bytes.insert(contentsOf: moved, at: frame.lowerBound)
        case 5:
            bytes[frame.lowerBound + 3] = UInt8(self.random.below(self.random.once(in: 5) ? 256 : 11))
        case 6:
            bytes[frame.lowerBound + 4] ^= [1, 4, 8, 0x20, 0xff][self.random.below(5)]
        case 7:
            let streamID = UInt8(self.random.below(12))
            for index in 5..<8 { bytes[frame.lowerBound + index] = 0 }
            bytes[frame.lowerBound + 8] = streamID
        case 8:
            self.setLength(&bytes, frame)
        default:
            let others = Self.frames(in: other)
            guard !others.isEmpty else { return }
            let taken = other[others[self.random.below(others.count)]]
            bytes.insert(contentsOf: taken, at: frame.upperBound)
        }
    }

    /// Makes the length that a frame states right, almost right or wrong.
    private mutating func setLength(_ bytes: inout [UInt8], _ frame: Range<Int>) {
        let actual = frame.count - WireFrame.headerBytes
        let lengths = [actual, actual + 1, max(0, actual - 1), 0, 4, 5, 6, 8, 0x4000, 0x4001, 0xff_ffff]
        let length = lengths[self.random.below(lengths.count)]
        for index in 0..<3 { bytes[frame.lowerBound + index] = UInt8(truncatingIfNeeded: length >> (16 - 8 * index)) }
        // Often the payload follows the length.
        if length <= 0x4001, self.random.below(2) == 0 {
            let payload = Array(bytes[(frame.lowerBound + WireFrame.headerBytes)..<frame.upperBound].prefix(length))
            let padded = payload + [UInt8](repeating: 0, count: length - payload.count)
            bytes.replaceSubrange((frame.lowerBound + WireFrame.headerBytes)..<frame.upperBound, with: padded)
        }
    }

    /// A frame of any type with a payload that its type often has.
    private mutating func newFrame() -> [UInt8] {
        let type = UInt8(self.random.below(11))
        let number = UInt32(truncatingIfNeeded: Self.edges[self.random.below(Self.edges.count)])
        var payload: [UInt8] = []
        var streamID = UInt32(self.random.below(8))
        switch type {
        case 0:
            let length = self.random.below(40)
            payload = MessagePieces.prefix(length) + [UInt8](repeating: 0x62, count: self.random.below(length + 6))
        case 1: payload = MessagePieces.requestBlock
        case 2: payload = Self.bytes(number) + [16]
        case 3: payload = Self.bytes(number & 0xf)
        case 4:
            streamID = 0
            for _ in 0..<self.random.below(4) { payload += [0, UInt8(self.random.below(9))] + Self.bytes(number) }
        case 6: payload = [UInt8](repeating: 0, count: 8)
        case 7: payload = Self.bytes(number) + Self.bytes(number & 0xf) + Array("bye".utf8)
        case 8: payload = Self.bytes(number)
        default: payload = (0..<self.random.below(20)).map { _ in UInt8(self.random.below(256)) }
        }
        if type == 6 || type == 7 { streamID = 0 }
        let flags = [0, 1, 4, 5, 0x0d, 0x25][self.random.below(6)]
        return MessagePieces.frame(type: type, flags: UInt8(flags), streamID: streamID, payload: payload)
    }

    private static func bytes(_ number: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
    }
}

/// Parts that seeds and mutations are made of.
enum MessagePieces {
    /// A request's fields without compression: static table entries and literals (RFC 7541, appendix A).
    static let requestBlock: [UInt8] =
        [0x83, 0x86] + Self.literal(4, "/s.S/M") + Self.literal(1, "localhost")
        + Self.literal(31, "application/grpc") + [0x00] + Self.string("te") + Self.string("trailers")

    /// A response's fields without compression.
    static let responseBlock: [UInt8] = [0x88] + Self.literal(31, "application/grpc")

    /// Trailers without compression.
    static let trailerBlock: [UInt8] = [0x00] + Self.string("grpc-status") + Self.string("0")

    /// The prefix of a message of `length` bytes.
    static func prefix(_ length: Int) -> [UInt8] {
        [0, 0, 0, UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length)]
    }

    /// A frame.
    static func frame(type: UInt8, flags: UInt8 = 0, streamID: UInt32 = 0, payload: [UInt8] = []) -> [UInt8] {
        let length = payload.count
        return [
            UInt8(truncatingIfNeeded: length >> 16), UInt8(truncatingIfNeeded: length >> 8),
            UInt8(truncatingIfNeeded: length), type, flags,
        ] + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: streamID >> $0) } + payload
    }

    /// A field whose name is in the static table, not indexed.
    private static func literal(_ index: UInt8, _ value: String) -> [UInt8] {
        // The index has four bits; larger ones go on in the next byte.
        (index < 15 ? [index] : [0x0f, index - 15]) + Self.string(value)
    }

    private static func string(_ text: String) -> [UInt8] {
        [UInt8(text.utf8.count)] + Array(text.utf8)
    }
}
