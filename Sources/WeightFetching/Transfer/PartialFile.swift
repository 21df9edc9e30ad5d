// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// An incomplete file: `NAME.incomplete`, and next to it the server's validator of the file.
///
/// The suffix is that of the hub's own tools.
final class PartialFile {
    static let suffix = ".incomplete"
    private static let longestValidator = 600
    private static let pieceBytes = 1 << 20

    private let path: String
    private var descriptor: Int32
    /// Bytes in the file.
    private(set) var byteCount: Int

    /// Opens what an earlier run left, or creates an empty file.
    ///
    /// - Parameter target: The name that the file gets when it is complete.
    /// - Throws: ``FetchError`` where the system refuses.
    init(for target: String) throws(FetchError) {
        self.path = target + Self.suffix
        self.byteCount = 0
        self.descriptor = open(self.path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard self.descriptor >= 0 else { throw Files.failure("cannot be opened for writing", self.path) }
        var information = stat()
        guard fstat(self.descriptor, &information) == 0 else { throw Files.failure("cannot be examined", self.path) }
        self.byteCount = Int(information.st_size)
    }

    deinit {
        if self.descriptor >= 0 { close(self.descriptor) }
    }

    /// Bytes that an earlier run left of a file.
    static func byteCount(of target: String) -> Int { Files.byteCount(target + self.suffix) ?? 0 }

    /// The server's validator of the file that the bytes belong to; nil where unknown.
    var validator: String? {
        guard let data = FileManager.default.contents(atPath: self.validatorPath), data.count <= Self.longestValidator
        else { return nil }
        let text = String(decoding: data, as: UTF8.self)
        return text.hasPrefix("\"") && text.hasSuffix("\"") && !text.contains("\n") ? text : nil
    }

    private var validatorPath: String { self.path + ".etag" }

    /// Truncates the file, and remembers which file the next bytes belong to.
    func prepare(from start: Int, validator: String?) throws(FetchError) {
        if start != self.byteCount {
            guard ftruncate(self.descriptor, off_t(start)) == 0 else {
                throw Files.failure("cannot be truncated", self.path)
            }
            self.byteCount = start
        }
        if let validator {
            do {
                try Data(validator.utf8).write(to: URL(fileURLWithPath: self.validatorPath), options: .atomic)
            } catch {
                throw FetchError(
                    .writeFailed,
                    "\(self.validatorPath): cannot be written: \(error.localizedDescription)"
                )
            }
        } else {
            unlink(self.validatorPath)
        }
    }

    /// Adds bytes at the end.
    func append(_ bytes: UnsafeRawBufferPointer) throws(FetchError) {
        var position = 0
        while position < bytes.count {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[position...])
            let written = pwrite(self.descriptor, piece.baseAddress, piece.count, off_t(self.byteCount))
            if written < 0 {
                if errno == EINTR { continue }
                throw Files.failure("cannot be written", self.path)
            }
            position += written
            self.byteCount += written
        }
    }

    /// Reads the file from the front.
    func read(_ body: (UnsafeRawBufferPointer) -> Void) throws(FetchError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.pieceBytes, alignment: 64)
        defer { buffer.deallocate() }
        var position = 0
        while position < self.byteCount {
            let count = pread(
                self.descriptor,
                buffer.baseAddress,
                min(buffer.count, self.byteCount - position),
                off_t(position)
            )
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Files.failure("cannot be read", self.path) }
            body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            position += count
        }
    }

    /// Flushes the file to disk, and renames it in one step.
    func finish(as target: String) throws(FetchError) {
        guard fsync(self.descriptor) == 0 else { throw Files.failure("cannot be written", self.path) }
        guard rename(self.path, target) == 0 else { throw Files.failure("cannot be renamed from \(self.path)", target) }
        unlink(self.validatorPath)
    }

    /// Removes the file.
    func discard() {
        unlink(self.path)
        unlink(self.validatorPath)
    }
}
