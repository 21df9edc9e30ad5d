// SPDX-License-Identifier: Apache-2.0

/// The lines of files, which may be larger than memory.
///
/// One pass at the beginning finds the lines. After it, any line is read from its file when it is asked for; kept in
/// memory is ``LineIndex`` alone.
public final class FileLines: LineSource {
    /// Bytes of a line at most, unless told otherwise.
    public static let defaultMaximumLineBytes = 1 << 20

    /// How many lines there are.
    public let count: Int

    /// A number of the files' content and order.
    public let fingerprint: UInt64

    private let files: [TextFile]
    /// The index of each file's first line.
    private let firstLines: [Int]
    private let maximumLineBytes: Int

    /// Opens files and finds their lines.
    ///
    /// - Parameters:
    ///   - paths: The files, one after the other.
    ///   - maximumLineBytes: Longer lines cannot be used; at least 1.
    ///   - progress: Told of bytes read since the last call.
    /// - Throws: ``DataError`` when a file cannot be read, is no text, or all are empty.
    public init(
        _ paths: [String],
        maximumLineBytes: Int = FileLines.defaultMaximumLineBytes,
        progress: (Int) -> Void = { _ in }
    ) throws(DataError) {
        guard maximumLineBytes >= 1, maximumLineBytes <= 1 << 30 else {
            throw DataError(
                .invalidSettings,
                "the limit of a line is \(maximumLineBytes) bytes; it must be from 1 to \(1 << 30)"
            )
        }
        var files: [TextFile] = []
        var firstLines: [Int] = []
        var count = 0
        var hash = ContentHash()
        for path in paths {
            let file = try TextFile(path: path, progress: progress)
            files.append(file)
            firstLines.append(count)
            count += file.index.lineCount
            hash.add(file.index.byteCount)
            hash.add(Int(truncatingIfNeeded: file.fingerprint))
        }
        guard count > 0 else {
            let names = paths.isEmpty ? "no file was given" : "\(paths.joined(separator: ", ")): no line in there"
            throw DataError(.noExamples, "\(names); give files with one example on each line")
        }
        self.files = files
        self.firstLines = firstLines
        self.count = count
        self.fingerprint = hash.value
        self.maximumLineBytes = maximumLineBytes
    }

    /// The memory that the index takes, in bytes.
    public var indexBytes: Int { self.files.reduce(0) { $0 + $1.index.indexBytes } }

    private func locate(_ index: Int) -> (file: TextFile, line: Int) {
        precondition(index >= 0 && index < self.count, "line \(index) of \(self.count)")
        // The last file that begins at or before the line; files without lines begin where the next one does.
        var low = 0
        var high = self.files.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if self.firstLines[middle] <= index {
                low = middle
            } else {
                high = middle
            }
        }
        return (self.files[low], index - self.firstLines[low])
    }

    /// Where a line stands.
    ///
    /// - Parameter index: The line, within `0 ..< count`.
    /// - Returns: Its file and number.
    public func place(of index: Int) -> LinePlace {
        let (file, line) = self.locate(index)
        return LinePlace(file: file.path, number: line + 1)
    }

    /// Reads a line.
    ///
    /// - Parameter index: The line, within `0 ..< count`.
    /// - Returns: The line.
    /// - Throws: ``DataError`` when it cannot be read, or its file has changed.
    public func line(_ index: Int) throws(DataError) -> LineContent {
        let (file, line) = self.locate(index)
        return try file.line(line, limit: self.maximumLineBytes)
    }
}
