// SPDX-License-Identifier: Apache-2.0

internal import Digests
internal import Foundation

/// What was written to a file.
struct WrittenFile: Sendable, Hashable {
    var byteCount: Int
    /// 64 lowercase hexadecimal digits.
    var sha256: String
}

/// A new file, written from front to back.
final class OutputFile {
    /// Small enough for steady progress, large enough that the calls cost nothing.
    private static let pieceBytes = 8_388_608

    private let path: String
    private var descriptor: Int32
    /// Digest of what was written so far, so that the file need not be read again for its checksum.
    private let digest: RunningDigest
    private var byteCount = 0

    /// - Parameter path: The file, which must not exist.
    /// - Throws: `writeFailed`.
    init(path: String) throws(CheckpointError) {
        do {
            self.digest = try RunningDigest(.sha256)
        } catch {
            throw CheckpointError(code: .writeFailed, message: "\(error)", file: path)
        }
        self.path = path
        self.descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard self.descriptor >= 0 else { throw FileSystem.writeFailure("cannot be created", path) }
    }

    deinit {
        if self.descriptor >= 0 { close(self.descriptor) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, wrote: (Int) -> Void = { _ in }) throws(CheckpointError) {
        var position = 0
        while position < bytes.count {
            let piece = UnsafeRawBufferPointer(
                rebasing: bytes[position..<min(bytes.count, position + Self.pieceBytes)]
            )
            let written = Foundation.write(self.descriptor, piece.baseAddress, piece.count)
            if written < 0 {
                if errno == EINTR { continue }
                throw FileSystem.writeFailure("cannot be written", self.path)
            }
            self.digest.update(UnsafeRawBufferPointer(rebasing: piece[..<written]))
            self.byteCount += written
            position += written
            wrote(written)
        }
    }

    func write(_ bytes: [UInt8]) throws(CheckpointError) {
        let result = bytes.withUnsafeBytes { buffer in
            Result { () throws(CheckpointError) in try self.write(buffer) }
        }
        try result.get()
    }

    /// Flushes the file to disk and closes it.
    @discardableResult
    func finish() throws(CheckpointError) -> WrittenFile {
        guard fsync(self.descriptor) == 0 else { throw FileSystem.writeFailure("cannot be written", self.path) }
        let result = close(self.descriptor)
        self.descriptor = -1
        guard result == 0 else { throw FileSystem.writeFailure("cannot be closed", self.path) }
        do {
            let sha256 = RunningDigest.hexadecimal(try self.digest.digest())
            return WrittenFile(byteCount: self.byteCount, sha256: sha256)
        } catch {
            throw CheckpointError(code: .writeFailed, message: "\(error)", file: self.path)
        }
    }
}
