// SPDX-License-Identifier: Apache-2.0

/// A normalized text cut into the words whose pieces are searched for.
///
/// Words end at white space, which is not kept, and begin at every U+2581, which is; a word that does not begin with
/// one gets one in front.
struct Words {
    private static let marker: [UInt8] = [0xE2, 0x96, 0x81]

    private var bytes: [UInt8] = []

    /// Where each word ends, in ascending order.
    private var ends: [Int] = []

    /// Cuts a text.
    ///
    /// - Parameter text: Well-formed UTF-8.
    init(_ text: [UInt8]) {
        self.bytes.reserveCapacity(text.count + text.count / 2 + 3)
        var isInside = false
        var index = 0
        while index < text.count {
            let length = Self.length(ofScalarFrom: text[index])
            if Self.isWhiteSpace(text, at: index) {
                isInside = false
            } else {
                let isMarker = length == 3 && text[index..<(index + 3)].elementsEqual(Self.marker)
                if isMarker || !isInside {
                    self.endWord()
                    if !isMarker { self.bytes.append(contentsOf: Self.marker) }
                }
                self.bytes.append(contentsOf: text[index..<(index + length)])
                isInside = true
            }
            index += length
        }
        self.endWord()
    }

    /// The number of words.
    var count: Int { self.ends.count }

    /// Gives a word's bytes to `body`.
    ///
    /// - Parameters:
    ///   - index: The word's place, below ``count``.
    ///   - body: Is called once; the bytes are valid until it returns.
    /// - Throws: What `body` throws.
    func withWord<Failure: Error>(
        _ index: Int,
        _ body: (UnsafeBufferPointer<UInt8>) throws(Failure) -> Void
    ) throws(Failure) {
        let start = index == 0 ? 0 : self.ends[index - 1]
        let failure: Failure? = self.bytes.withUnsafeBufferPointer { buffer in
            do throws(Failure) {
                try body(UnsafeBufferPointer(rebasing: buffer[start..<self.ends[index]]))
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }

    private mutating func endWord() {
        if self.bytes.count > self.ends.last ?? 0 { self.ends.append(self.bytes.count) }
    }

    private static func length(ofScalarFrom byte: UInt8) -> Int {
        switch byte {
        case ..<0x80: 1
        case ..<0xE0: 2
        case ..<0xF0: 3
        default: 4
        }
    }

    /// Whether the scalar at `index` has the Unicode property White_Space.
    private static func isWhiteSpace(_ text: [UInt8], at index: Int) -> Bool {
        switch text[index] {
        case 0x20, 0x09...0x0D:
            return true
        case 0xC2:
            return text[index + 1] == 0x85 || text[index + 1] == 0xA0
        case 0xE1:  // U+1680
            return text[index + 1] == 0x9A && text[index + 2] == 0x80
        case 0xE2:
            switch (text[index + 1], text[index + 2]) {
            case (0x80, 0x80...0x8A), (0x80, 0xA8), (0x80, 0xA9), (0x80, 0xAF), (0x81, 0x9F):
                return true  // U+2000...U+200A, U+2028, U+2029, U+202F, U+205F
            default:
                return false
            }
        case 0xE3:  // U+3000
            return text[index + 1] == 0x80 && text[index + 2] == 0x80
        default:
            return false
        }
    }
}
