// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A whole file, mapped read-only into memory.
final class MappedFile: TensorStorage {
    /// The file's path, for messages.
    let path: String
    // Safety: the mapping is never written, is made in `init` and ends in `deinit`; readers hold a reference to `self`.
    nonisolated(unsafe) let bytes: UnsafeRawBufferPointer
    /// The file as it was when it was mapped.
    let state: FileState

    /// Maps a regular file.
    ///
    /// - Parameter path: The file; symbolic links are followed.
    /// - Throws: `notFound` or `unreadable`.
    init(path: String) throws(CheckpointError) {
        self.path = path
        // O_NONBLOCK: opening a named pipe must not wait for a writer. It changes nothing for a regular file.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw Self.failure(errno, "cannot be opened", path) }
        defer { close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0 else { throw Self.failure(errno, "cannot be examined", path) }
        guard information.st_mode & S_IFMT == S_IFREG else {
            throw CheckpointError(code: .unreadable, message: "is not a regular file", file: path)
        }
        self.state = FileState(information)
        let count = Int(information.st_size)
        guard count > 0 else {
            // An empty file cannot be mapped.
            self.bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let address = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0), address != MAP_FAILED else {
            throw Self.failure(errno, "cannot be mapped into memory", path)
        }
        self.bytes = UnsafeRawBufferPointer(start: address, count: count)
    }

    /// Tells the system that the whole file will be read soon, so that it prefetches it; returns at once.
    func prefetch() {
        if let address = self.bytes.baseAddress {
            // Only advice: it may be ignored.
            _ = madvise(UnsafeMutableRawPointer(mutating: address), self.bytes.count, MADV_WILLNEED)
        }
    }

    deinit {
        if let address = self.bytes.baseAddress {
            munmap(UnsafeMutableRawPointer(mutating: address), self.bytes.count)
        }
    }

    private static func failure(_ code: Int32, _ complaint: String, _ path: String) -> CheckpointError {
        if code == ENOENT, let target = FileSystem.brokenLink(path) {
            return CheckpointError(
                code: .unreadable,
                message:
                    "is a link to \(target), which does not exist, as in a cache that was cut short or moved without its blobs; "
                    + "fetch the file again",
                file: path
            )
        }
        return CheckpointError(
            code: code == ENOENT || code == ENOTDIR ? .notFound : .unreadable,
            message: "\(complaint): \(String(cString: strerror(code)))",
            file: path
        )
    }
}
