// SPDX-License-Identifier: Apache-2.0

/// Where a line stands.
public struct LinePlace: Sendable, Hashable, CustomStringConvertible {
    /// The file's path.
    public let file: String

    /// The line's number in the file, from 1.
    public let number: Int

    /// Creates a place.
    ///
    /// - Parameters:
    ///   - file: The file's path.
    ///   - number: The line's number in the file, from 1.
    public init(file: String, number: Int) {
        self.file = file
        self.number = number
    }

    /// `file:number`, as editors read it.
    public var description: String { "\(self.file):\(self.number)" }
}

/// What reading a line gives.
public enum LineContent: Sendable, Hashable {
    /// The line's bytes without its end (LF, or CR and LF).
    case bytes([UInt8])

    /// The line has more bytes than the source's limit; they were not read.
    case tooLong(limit: Int)
}

/// Lines that can be read in any order.
public protocol LineSource: Sendable {
    /// How many lines there are.
    var count: Int { get }

    /// A number that other content has not, but for one chance in 2^64: it tells whether a saved position fits.
    var fingerprint: UInt64 { get }

    /// Where a line stands.
    ///
    /// - Parameter index: The line, within `0 ..< count`.
    /// - Returns: Its file and number.
    func place(of index: Int) -> LinePlace

    /// Reads a line.
    ///
    /// - Parameter index: The line, within `0 ..< count`.
    /// - Returns: The line.
    /// - Throws: ``DataError`` when it cannot be read, or its file has changed.
    func line(_ index: Int) throws(DataError) -> LineContent
}

/// Lines in memory.
public struct MemoryLines: LineSource {
    /// The lines' name in messages.
    public let name: String

    private let lines: [[UInt8]]
    private let maximumLineBytes: Int

    /// A number of the lines' content.
    public let fingerprint: UInt64

    /// Takes lines.
    ///
    /// - Parameters:
    ///   - lines: The lines, without their ends.
    ///   - name: Their name in messages.
    ///   - maximumLineBytes: Longer lines are not given out.
    public init(_ lines: [[UInt8]], name: String, maximumLineBytes: Int = FileLines.defaultMaximumLineBytes) {
        self.lines = lines
        self.name = name
        self.maximumLineBytes = maximumLineBytes
        var hash = ContentHash()
        for line in lines {
            hash.add(line.count)
            line.withUnsafeBytes { hash.add(last: $0) }
        }
        self.fingerprint = hash.value
    }

    /// Takes lines as texts.
    ///
    /// - Parameters:
    ///   - lines: The lines, without their ends.
    ///   - name: Their name in messages.
    public init(_ lines: [String], name: String) {
        self.init(lines.map { Array($0.utf8) }, name: name)
    }

    /// How many lines there are.
    public var count: Int { self.lines.count }

    /// The name, and the line's number from 1.
    ///
    /// - Parameter index: The line.
    /// - Returns: Its place.
    public func place(of index: Int) -> LinePlace { LinePlace(file: self.name, number: index + 1) }

    /// Gives a line.
    ///
    /// - Parameter index: The line.
    /// - Returns: The line.
    /// - Throws: Nothing.
    public func line(_ index: Int) throws(DataError) -> LineContent {
        let line = self.lines[index]
        guard line.count <= self.maximumLineBytes else {
            return .tooLong(limit: self.maximumLineBytes)
        }
        return .bytes(line)
    }
}
