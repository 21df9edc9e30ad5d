// SPDX-License-Identifier: Apache-2.0

/// A text cut into windows, for models that learn which character comes next.
///
/// Window `i` holds the code points from `i * length` on, twice `length` of them where the text is long enough, so that an
/// example of `length` code points and the one behind can begin at any of the first `length`. There are
/// `(code points - 1) / length` windows, as in labml's `SequentialUnBatchedDataset`
/// (`labml_nn/helpers/datasets.py` of labml_nn 0.5.1). The text is kept in memory.
public struct TextWindows: LineSource {
    /// Which part of a text is cut.
    public enum Part: Sendable, Hashable {
        /// All of it.
        case whole
        /// All but its last share, of code points.
        case first(holdingOut: Double)
        /// Its last share, of code points.
        case last(Double)
    }

    /// Bytes of a text at most.
    public static let mostBytes = 1 << 30

    /// How many windows there are.
    public let count: Int

    /// A number of the text's content, its part and the windows' length.
    public let fingerprint: UInt64

    private let bytes: [UInt8]
    /// Where every window begins, and then where the text ends.
    private let starts: [Int]
    /// The number of line ends before each window.
    private let lines: [Int]
    private let files: [File]

    private struct File: Sendable {
        var path: String
        var start: Int
        /// Line ends before it.
        var lines: Int
    }

    /// Reads files as one text.
    ///
    /// - Parameters:
    ///   - paths: The files, one after the other with nothing between them.
    ///   - length: Code points of an example, at least 1.
    ///   - part: Which part of the text is cut; the parts of one share do not overlap.
    /// - Throws: ``DataError`` for a file that cannot be read or is no UTF-8, for more than ``mostBytes``, and for a part that
    ///   is too short for one window.
    public init(_ paths: [String], length: Int, part: Part = .whole) throws(DataError) {
        guard length >= 1 else {
            throw DataError(.invalidSettings, "windows have \(length) characters; they must have at least 1")
        }
        var bytes: [UInt8] = []
        var files: [File] = []
        for path in paths {
            files.append(File(path: path, start: bytes.count, lines: bytes.count { $0 == UInt8(ascii: "\n") }))
            bytes += try Self.contents(of: path, room: Self.mostBytes - bytes.count)
        }
        let cut = try Self.cut(bytes, part)
        let (starts, lines, points) = Self.windows(of: bytes, in: cut, length: length)
        guard points > length else {
            let name = paths.isEmpty ? "no file was given" : paths.joined(separator: ", ")
            throw DataError(
                .noExamples,
                "\(name): \(points) characters to read, but a window of \(length) and the character behind need \(length + 1); give"
                    + " more text, shorter windows or another share to hold out"
            )
        }
        var hash = ContentHash()
        hash.add(length)
        hash.add(cut.lowerBound)
        hash.add(cut.count)
        bytes[cut].withUnsafeBytes { hash.add(last: $0) }
        self.fingerprint = hash.value
        self.count = (points - 1) / length
        self.bytes = bytes
        self.starts = starts
        self.lines = lines
        self.files = files
    }

    private static func contents(of path: String, room: Int) throws(DataError) -> [UInt8] {
        guard let bytes = try TextFile.contents(of: path, limit: room) else {
            throw DataError(
                .invalidSettings,
                "the text has more than \(Self.mostBytes) bytes, which is the limit; give a part of it",
                file: path
            )
        }
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw DataError(.notText, "is not UTF-8; convert it with iconv", file: path)
        }
        return bytes
    }

    /// Whether a byte begins a code point.
    private static func isStart(_ byte: UInt8) -> Bool { byte & 0xC0 != 0x80 }

    /// The bytes of a part.
    private static func cut(_ bytes: [UInt8], _ part: Part) throws(DataError) -> Range<Int> {
        let share: Double
        switch part {
        case .whole: return bytes.indices
        case .first(let held), .last(let held): share = held
        }
        guard share >= 0, share < 1 else {
            throw DataError(
                .invalidSettings,
                "the share of the text to hold out is \(share); it must be at least 0 and below 1"
            )
        }
        let points = bytes.count { Self.isStart($0) }
        var left = Int(Double(points) * (1 - share))
        let split =
            bytes.firstIndex { byte in
                guard Self.isStart(byte) else { return false }
                left -= 1
                return left < 0
            } ?? bytes.endIndex
        if case .first = part { return 0..<split }
        return split..<bytes.endIndex
    }

    private static func windows(
        of bytes: [UInt8],
        in range: Range<Int>,
        length: Int
    ) -> (starts: [Int], lines: [Int], points: Int) {
        var (starts, lines) = ([Int](), [Int]())
        var points = 0
        var ends = bytes[..<range.lowerBound].count { $0 == UInt8(ascii: "\n") }
        for index in range {
            if Self.isStart(bytes[index]) {
                if points % length == 0 {
                    starts.append(index)
                    lines.append(ends)
                }
                points += 1
            }
            if bytes[index] == UInt8(ascii: "\n") { ends += 1 }
        }
        return (starts + [range.upperBound], lines, points)
    }

    /// The file and the line in which a window begins.
    ///
    /// - Parameter index: The window, within `0 ..< count`.
    /// - Returns: Its place.
    public func place(of index: Int) -> LinePlace { self.place(at: self.starts[index], lines: self.lines[index]) }

    private func place(at byte: Int, lines: Int) -> LinePlace {
        let file = self.files.last { $0.start <= byte }
        return LinePlace(file: file?.path ?? "", number: lines - (file?.lines ?? 0) + 1)
    }

    /// A window's bytes.
    ///
    /// - Parameter index: The window, within `0 ..< count`.
    /// - Returns: Up to twice the length of an example, at least one code point more than its length.
    /// - Throws: Nothing.
    public func line(_ index: Int) throws(DataError) -> LineContent {
        .bytes(Array(self.bytes[self.starts[index]..<self.starts[min(index + 2, self.starts.count - 1)]]))
    }

    /// The first character of the text that a vocabulary lacks, and where it is.
    ///
    /// - Parameter isKnown: Whether the vocabulary has a character.
    /// - Returns: The character and its place; nil where it has them all.
    public func firstCharacter(
        unless isKnown: (Unicode.Scalar) -> Bool
    ) -> (character: Unicode.Scalar, place: LinePlace)? {
        guard let first = self.starts.first, let end = self.starts.last else { return nil }
        var known: Set<Unicode.Scalar> = []
        var (byte, lines) = (first, self.lines.first ?? 0)
        for character in String(decoding: self.bytes[first..<end], as: UTF8.self).unicodeScalars {
            if !known.contains(character) {
                guard isKnown(character) else { return (character, self.place(at: byte, lines: lines)) }
                known.insert(character)
            }
            if character == "\n" { lines += 1 }
            byte += UTF8.width(character)
        }
        return nil
    }

    /// The characters of files, each once, ascending by code point: Python's `sorted(set(text))`, which is labml's vocabulary.
    ///
    /// - Parameter paths: The files.
    /// - Returns: The characters.
    /// - Throws: ``DataError`` for a file that cannot be read or is no UTF-8, and where there is no character.
    public static func characters(of paths: [String]) throws(DataError) -> String {
        var found: Set<Unicode.Scalar> = []
        var room = Self.mostBytes
        for path in paths {
            let bytes = try Self.contents(of: path, room: room)
            room -= bytes.count
            found.formUnion(String(decoding: bytes, as: UTF8.self).unicodeScalars)
        }
        guard !found.isEmpty else {
            throw DataError(.noExamples, "\(paths.joined(separator: ", ")): no character in there; give a text")
        }
        var text = String.UnicodeScalarView()
        text.append(contentsOf: found.sorted())
        return String(text)
    }
}

extension UTF8 {
    /// The bytes of a character.
    fileprivate static func width(_ scalar: Unicode.Scalar) -> Int {
        switch scalar.value {
        case ..<0x80: 1
        case ..<0x800: 2
        case ..<0x10000: 3
        default: 4
        }
    }
}
