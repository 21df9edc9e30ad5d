// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// An open file of lines.
final class TextFile: Sendable {
    /// Bytes that are read at once.
    private static let chunkBytes = 1 << 16

    let path: String
    let index: LineIndex
    let fingerprint: UInt64

    private let descriptor: CInt
    private let state: State
    /// Bytes of a byte order mark before the first line.
    private let markBytes: Int

    /// What changes when a file's content does.
    private struct State: Sendable, Hashable {
        var bytes: Int
        var seconds: Int
        var nanoseconds: Int
    }

    /// Opens a file and finds its lines.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - progress: Told of bytes read since the last call.
    /// - Throws: ``DataError`` when it cannot be read, or is no text.
    init(path: String, progress: (Int) -> Void) throws(DataError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw Self.failure("cannot be opened", path)
        }
        do throws(DataError) {
            let state = try Self.state(of: descriptor, path)
            let scan = try Self.scan(descriptor, path, progress: progress)
            guard try Self.state(of: descriptor, path) == state, scan.index.byteCount == state.bytes else {
                throw DataError(
                    .fileChanged,
                    "was written to while its lines were counted; start again when it is complete",
                    file: path
                )
            }
            self.path = path
            self.index = scan.index
            self.fingerprint = scan.hash.value
            self.markBytes = scan.markBytes
            self.descriptor = descriptor
            self.state = state
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit {
        close(self.descriptor)
    }

    private static func failure(_ complaint: String, _ path: String) -> DataError {
        let reason = String(cString: strerror(errno))
        return DataError(.unreadableFile, "\(complaint): \(reason); check the path and its permissions", file: path)
    }

    private static func state(of descriptor: CInt, _ path: String) throws(DataError) -> State {
        var information = stat()
        guard fstat(descriptor, &information) == 0 else {
            throw Self.failure("cannot be read", path)
        }
        guard information.st_mode & S_IFMT == S_IFREG else {
            throw DataError(
                .unreadableFile,
                "is no file but a folder, a pipe or a device; lines are read in any order, so give a file",
                file: path
            )
        }
        #if canImport(Darwin)
        let time = information.st_mtimespec
        #else
        let time = information.st_mtim
        #endif
        return State(bytes: Int(information.st_size), seconds: Int(time.tv_sec), nanoseconds: Int(time.tv_nsec))
    }

    private static func scan(
        _ descriptor: CInt,
        _ path: String,
        progress: (Int) -> Void
    ) throws(DataError) -> (index: LineIndex, hash: ContentHash, markBytes: Int) {
        var index = LineIndex()
        var hash = ContentHash()
        var markBytes = 0
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            let count = try Self.read(descriptor, path, at: index.byteCount, into: buffer)
            let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
            if index.byteCount == 0 {
                markBytes = try Self.check(beginning: bytes, path)
            }
            index.add(bytes)
            hash.add(last: bytes)
            progress(count)
            if count < buffer.count {
                return (index, hash, markBytes)
            }
        }
    }

    /// Refuses what is no UTF-8 as a whole, where a reason for each line would not say what to do.
    ///
    /// - Returns: The bytes of UTF-8's byte order mark, if there is one.
    private static func check(beginning bytes: UnsafeRawBufferPointer, _ path: String) throws(DataError) -> Int {
        if bytes.starts(with: [0x1F, 0x8B]) || bytes.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) {
            throw DataError(.notText, "is compressed; give the file that gunzip or unzstd makes of it", file: path)
        }
        if bytes.starts(with: [0xFF, 0xFE]) || bytes.starts(with: [0xFE, 0xFF]) {
            throw DataError(
                .notText,
                "is UTF-16 by its first two bytes; convert it: iconv -f UTF-16 -t UTF-8",
                file: path
            )
        }
        return bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
    }

    /// Fills a buffer, or as much of it as the file has.
    private static func read(
        _ descriptor: CInt,
        _ path: String,
        at offset: Int,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(DataError) -> Int {
        var filled = 0
        while filled < buffer.count, let base = buffer.baseAddress {
            let count = pread(descriptor, base + filled, buffer.count - filled, off_t(offset + filled))
            if count == 0 { break }
            if count < 0 {
                if errno == EINTR { continue }
                throw Self.failure("cannot be read at byte \(offset + filled)", path)
            }
            filled += count
        }
        return filled
    }

    /// Reads a whole file.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - limit: Bytes at most.
    /// - Returns: Its bytes without a byte order mark; nil where there are more.
    /// - Throws: ``DataError`` when it cannot be read, or is no text by its beginning.
    static func contents(of path: String, limit: Int) throws(DataError) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw Self.failure("cannot be opened", path)
        }
        defer { close(descriptor) }
        let size = try Self.state(of: descriptor, path).bytes
        guard size <= limit else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
        defer { buffer.deallocate() }
        let count = try Self.read(descriptor, path, at: 0, into: buffer)
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        return Array(bytes.dropFirst(try Self.check(beginning: bytes, path)))
    }

    /// Reads a line.
    ///
    /// - Parameters:
    ///   - number: The line, from 0.
    ///   - limit: Bytes of a line at most.
    /// - Returns: The line.
    /// - Throws: ``DataError`` when it cannot be read, or the file has changed.
    func line(_ number: Int, limit: Int) throws(DataError) -> LineContent {
        guard try Self.state(of: self.descriptor, self.path) == self.state else {
            throw DataError(
                .fileChanged,
                "has been written to since its lines were counted; restore it, or start again with the new one",
                file: self.path
            )
        }
        var (offset, skip) = self.index.start(of: number)
        var line: [UInt8] = []
        var length = 0
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.chunkBytes, alignment: 16)
        defer { buffer.deallocate() }
        reading: while true {
            let count = try Self.read(self.descriptor, self.path, at: offset, into: buffer)
            var rest = UnsafeRawBufferPointer(rebasing: buffer[..<count])
            while skip > 0, let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                rest = UnsafeRawBufferPointer(rebasing: rest[(end + 1)...])
                skip -= 1
            }
            if skip == 0 {
                let end = rest.firstIndex(of: UInt8(ascii: "\n"))
                let piece = rest[..<(end ?? rest.count)]
                length += piece.count
                // One byte more than the limit may still be the CR of the line's end.
                guard length <= limit + 1 else {
                    return .tooLong(limit: limit)
                }
                line.append(contentsOf: piece)
                if end != nil { break reading }
            }
            if count < buffer.count { break reading }
            offset += count
        }
        return self.trimmed(line, isFirst: number == 0, limit: limit)
    }

    private func trimmed(_ line: [UInt8], isFirst: Bool, limit: Int) -> LineContent {
        var line = line
        if line.last == UInt8(ascii: "\r") {
            line.removeLast()
        }
        if isFirst {
            line.removeFirst(min(self.markBytes, line.count))
        }
        return line.count <= limit ? .bytes(line) : .tooLong(limit: limit)
    }
}
