// SPDX-License-Identifier: Apache-2.0

/// The table of normalizations in a `spiece.model`, applied as the tokenizers of transformers apply it.
///
/// The table is SentencePiece's `precompiled_charsmap`: the size of a trie in bytes (little-endian, 32 bits), a Darts
/// double-array trie of 32-bit units whose keys are UTF-8 and whose values are offsets, and the replacements, each
/// ended by a NUL, that the offsets point into
/// (https://github.com/google/sentencepiece/blob/v0.1.97/src/normalizer.cc).
///
/// SentencePiece replaces the longest key that starts at a position. The tokenizers package, by which transformers
/// reads these models, uses extended grapheme clusters instead
/// (https://github.com/huggingface/tokenizers/blob/12c29524a8c5cc07a7f8dd77760d2546b3f2357d/tokenizers/src/normalizers/precompiled.rs):
/// a cluster of fewer than 6 bytes is replaced as a whole by the value of the **shortest** key it starts with, which
/// can lose a combining mark; any other cluster is replaced scalar by scalar. Checkpoints are compared with
/// transformers, so this does the same. Text for which the two differ is rare: joiners and several marks on a letter.
struct CharacterMap: Sendable {
    /// Bytes that a replacement may have.
    static let mostReplacementBytes = 1_024

    private let units: [UInt32]
    private let replacements: [UInt8]

    /// For each ASCII character: the replacement's place, or nil for a character that stays as it is.
    private let ascii: [Range<Int>?]

    /// Creates a map that changes nothing.
    init() {
        self.init(units: [], replacements: [])
    }

    /// Reads a table.
    ///
    /// - Parameter table: The bytes of `precompiled_charsmap`; empty bytes change nothing.
    /// - Throws: `WireReader.Malformed` when the bytes are malformed.
    init(table: [UInt8]) throws(WireReader.Malformed) {
        guard !table.isEmpty else {
            self.init()
            return
        }
        guard table.count >= 4 else { throw .init(message: "precompiled_charsmap of \(table.count) bytes") }
        func unit(_ index: Int) -> UInt32 {
            table.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)) }
        }
        let size = Int(unit(0))
        guard size >= 4, size % 4 == 0, size <= table.count - 4 else {
            throw .init(message: "precompiled_charsmap says that its trie has \(size) bytes of \(table.count)")
        }
        let replacements = Array(table[(4 + size)...])
        guard String(validating: replacements, as: UTF8.self) != nil else {
            throw .init(message: "the replacements of precompiled_charsmap are not UTF-8")
        }
        // The tables of published models replace by 33 bytes at most. A long replacement would let a short text grow without
        // bound.
        if let longest = replacements.split(separator: 0).map(\.count).max(), longest > Self.mostReplacementBytes {
            throw .init(
                message:
                    "a replacement of \(longest) bytes in precompiled_charsmap; the limit is \(Self.mostReplacementBytes)"
            )
        }
        let units = (1...(size / 4)).map(unit)
        self.init(units: units, replacements: replacements)
    }

    private init(units: [UInt32], replacements: [UInt8]) {
        self.units = units
        self.replacements = replacements
        self.ascii = (0..<128)
            .map { byte in
                Self.replacement(of: CollectionOfOne(UInt8(byte)), units: units, replacements: replacements)
            }
    }

    /// Normalizes text.
    ///
    /// - Parameter text: Well-formed UTF-8.
    /// - Returns: Well-formed UTF-8.
    func normalize(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] { self.normalize(text, atMost: .max) }

    /// Normalizes text, and stops soon after the result is longer than a limit.
    ///
    /// - Parameters:
    ///   - text: Well-formed UTF-8.
    ///   - limit: Bytes.
    /// - Returns: Well-formed UTF-8; incomplete where it has more than `limit` bytes.
    func normalize(_ text: UnsafeBufferPointer<UInt8>, atMost limit: Int) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(min(text.count, limit))
        guard !self.units.isEmpty else {
            output.append(contentsOf: text)
            return output
        }
        var start = 0
        while start < text.count, output.count <= limit {
            if Self.endsCluster(text, at: start) {
                self.append(text[start], to: &output)
                start += 1
                continue
            }
            // The standard library finds the clusters up to the next certain boundary.
            var end = start + 1
            while end < text.count, !Self.endsCluster(text, at: end) { end += 1 }
            end = min(end + 1, text.count)
            for cluster in String(decoding: text[start..<end], as: UTF8.self) {
                self.append(cluster, to: &output, atMost: limit)
                if output.count > limit { break }
            }
            start = end
        }
        return output
    }

    /// Whether an ASCII character at `index` is followed by nothing or by another that starts its own cluster.
    private static func endsCluster(_ text: UnsafeBufferPointer<UInt8>, at index: Int) -> Bool {
        guard text[index] < 0x80 else { return false }
        guard index + 1 < text.count else { return true }
        return text[index + 1] < 0x80 && !(text[index] == 0x0D && text[index + 1] == 0x0A)
    }

    private func append(_ byte: UInt8, to output: inout [UInt8]) {
        if let replacement = self.ascii[Int(byte)] {
            output.append(contentsOf: self.replacements[replacement])
        } else {
            output.append(byte)
        }
    }

    private func append(_ cluster: Character, to output: inout [UInt8], atMost limit: Int) {
        let whole = cluster.utf8
        if whole.count < 6, let replacement = self.replacement(of: whole) {
            output.append(contentsOf: self.replacements[replacement])
            return
        }
        // A cluster can be as long as the text: a letter and thousands of marks.
        for scalar in cluster.unicodeScalars where output.count <= limit {
            let bytes = UTF8.encode(scalar).map(Array.init) ?? []
            if let replacement = self.replacement(of: bytes) {
                output.append(contentsOf: self.replacements[replacement])
            } else {
                output.append(contentsOf: bytes)
            }
        }
    }

    private func replacement(of key: some Sequence<UInt8>) -> Range<Int>? {
        Self.replacement(of: key, units: self.units, replacements: self.replacements)
    }

    /// Finds the replacement of the shortest key that `text` starts with.
    ///
    /// A unit's bits: 0-7 label, 8 whether a value follows, 9 whether the offset is in steps of 256, 10-31 offset; in
    /// a value's unit bits 0-30 are the value and bit 31 is set.
    private static func replacement(
        of text: some Sequence<UInt8>,
        units: [UInt32],
        replacements: [UInt8]
    ) -> Range<Int>? {
        func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & (1 << 9)) >> 6) }
        guard let root = units.first else { return nil }
        var node = offset(root)
        for byte in text {
            node ^= Int(byte)
            guard byte != 0, node < units.count, units[node] & (1 << 31 | 0xFF) == UInt32(byte) else { return nil }
            let unit = units[node]
            node ^= offset(unit)
            guard unit >> 8 & 1 == 1 else { continue }
            guard node < units.count else { return nil }
            return Self.entry(at: Int(units[node] & (1 << 31 - 1)), in: replacements)
        }
        return nil
    }

    private static func entry(at start: Int, in replacements: [UInt8]) -> Range<Int>? {
        // An offset into the middle of a character would produce invalid UTF-8.
        guard start <= replacements.count, start == replacements.count || replacements[start] & 0xC0 != 0x80 else {
            return nil
        }
        let end = replacements[start...].firstIndex(of: 0) ?? replacements.count
        return start..<end
    }
}
