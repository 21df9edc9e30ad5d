// SPDX-License-Identifier: Apache-2.0

extension Mutator {
    /// A field of protocol buffers: where it lies, and where its payload does if it has a length.
    private struct Field {
        var range: Range<Int>
        var payload: Range<Int>?
    }

    /// Changes the fields of a message; where one has a payload, often that, with the right length in front of it.
    mutating func mutateFields(_ bytes: inout [UInt8], _ other: [UInt8], depth: Int = 0) {
        let fields = Self.fields(in: bytes)
        guard !fields.isEmpty else { return bytes.append(UInt8(truncatingIfNeeded: self.random.next())) }
        let field = fields[self.random.below(fields.count)]
        switch self.random.below(10) {
        case 0: bytes.removeSubrange(field.range)
        case 1:
            for _ in 0...self.random.below(self.random.once(in: 8) ? 300 : 3) {
                bytes.insert(contentsOf: bytes[field.range], at: field.range.upperBound)
            }
        case 2:
            let others = Self.fields(in: other)
            guard !others.isEmpty else { return }
            let taken = other[others[self.random.below(others.count)].range]
            bytes.insert(contentsOf: taken, at: field.range.lowerBound)
        case 3:
            // The same payload as another field, or as another kind.
            bytes[field.range.lowerBound] = UInt8(self.random.below(64))
        case 4:
            // A number or a float at an edge.
            let values: [[UInt8]] = [
                [0x0D, 0, 0, 0xC0, 0x7F], [0x15, 0, 0, 0x80, 0x7F], [0x15, 0, 0, 0x80, 0xFF],
                [0x15, 0xFF, 0xFF, 0x7F, 0x7F],
                [0x18, 0], [0x18, 7], [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], [0x0A, 0],
                [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], [0x15, 1, 0, 0, 0],
            ]
            bytes.insert(contentsOf: values[self.random.below(values.count)], at: field.range.upperBound)
        default:
            guard let range = field.payload else { return }
            var payload = Array(bytes[range])
            if depth < 2, self.random.below(3) != 0 {
                self.mutateFields(&payload, other, depth: depth + 1)
            } else {
                self.mutateBytes(&payload, other)
                if self.random.once(in: 50) { payload += [UInt8](repeating: 0x61, count: self.random.below(20_000)) }
            }
            let tag = bytes[field.range.lowerBound]
            bytes.replaceSubrange(field.range, with: [tag] + Self.varint(payload.count) + payload)
        }
    }

    private static func fields(in bytes: [UInt8]) -> [Field] {
        var fields: [Field] = []
        var position = 0
        while position < bytes.count {
            let start = position
            let kind = bytes[position] & 7
            position += 1
            // Every field of these files has a number below 16, which one byte holds.
            guard bytes[start] < 0x80 else { break }
            switch kind {
            case 0:
                guard Self.number(in: bytes, &position) != nil else { return fields }
            case 1: position += 8
            case 5: position += 4
            case 2:
                guard let count = Self.number(in: bytes, &position), count <= bytes.count - position else {
                    return fields
                }
                let payload = position..<position + count
                position += count
                fields.append(Field(range: start..<position, payload: payload))
                continue
            default: return fields
            }
            guard position <= bytes.count else { break }
            fields.append(Field(range: start..<position))
        }
        return fields
    }

    private static func number(in bytes: [UInt8], _ position: inout Int) -> Int? {
        var value = 0
        var shift = 0
        while position < bytes.count, shift < 56 {
            let byte = bytes[position]
            position += 1
            value |= Int(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }

    private static func varint(_ value: Int) -> [UInt8] {
        var rest = value
        var output: [UInt8] = []
        while rest >= 0x80 {
            output.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        return output + [UInt8(rest)]
    }

    // MARK: - Pickles

    /// Parts of pickles: opcodes, alone and as `torch.save` strings them together.
    private static let opcodes: [[UInt8]] =
        [
            "}q\u{0}", "]q\u{1}", ")", "(", "t", "u", "e", "s", "a", "0", "N", ".", "R", "Q", "b", "K\u{2}",
            "M\u{0}\u{1}",
            "X\u{1}\u{0}\u{0}\u{0}a", "X\u{7}\u{0}\u{0}\u{0}storage", "X\u{1}\u{0}\u{0}\u{0}0", "h\u{0}", "h\u{1}",
            "q\u{0}",
            "ctorch._utils\n_rebuild_tensor_v2\n", "ctorch._utils\n_rebuild_parameter\n", "ctorch\nFloatStorage\n",
            "ctorch\nHalfStorage\n", "ctorch\nLongStorage\n", "ccollections\nOrderedDict\n", "cos\nsystem\n",
            "G\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}",
        ]
        .map { Array($0.utf8) }
        + [
            [0x80, 2], [0x80, 4], [0x85], [0x86], [0x87], [0x88], [0x89], [0x93], [0x94],
            [0x95, 0, 0, 0, 0, 0, 0, 0, 0],
            [0x8C, 1, 0x61], [0x8D, 1, 0, 0, 0, 0, 0, 0, 0, 0x61], [0x8D] + [UInt8](repeating: 0xFF, count: 8),
            [0x4A, 0xFF, 0xFF, 0xFF, 0xFF], [0x4A, 0, 0, 0, 0x80], [0x4A, 0xFF, 0xFF, 0xFF, 0x7F],
            [0x8A, 8] + [UInt8](repeating: 0xFF, count: 7) + [0x7F], [0x8A, 8, 0, 0, 0, 0, 0, 0, 0, 0x80],
            [0x8A, 8] + [UInt8](repeating: 0xFF, count: 7) + [0x3F], [0x8A, 0], [0x8A, 9, 0],
            [0x72, 0xFF, 0xFF, 0xFF, 0xFF],
            [0x6A, 0, 0, 0, 0], [0x58, 0xFF, 0xFF, 0xFF, 0xFF], [0x4B, 0], [0x4B, 1], [0x4B, 4], [0x4B, 16],
        ]

    /// Puts opcodes in, over others, or many times.
    mutating func mutatePickle(_ bytes: inout [UInt8], _ other: [UInt8]) {
        let opcode = Self.opcodes[self.random.below(Self.opcodes.count)]
        let place = self.random.below(bytes.count + 1)
        switch self.random.below(6) {
        case 0, 1: bytes.insert(contentsOf: opcode, at: place)
        case 2: bytes.replaceSubrange(place..<min(bytes.count, place + opcode.count), with: opcode)
        case 3:
            let times = [10, 300, 5_000][self.random.below(3)]
            bytes.insert(contentsOf: (0..<times).flatMap { _ in opcode }, at: place)
        case 4:
            let end = min(bytes.count, place + 1 + self.random.below(60))
            bytes.insert(contentsOf: Array(bytes[place..<end]), at: self.random.below(bytes.count + 1))
        default: self.mutateBytes(&bytes, other)
        }
    }
}
