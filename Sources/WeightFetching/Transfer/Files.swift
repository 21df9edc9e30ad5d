// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What caches need from the file system.
enum Files {
    /// The system's error, as a failure.
    static func failure(_ what: String, _ path: String) -> FetchError {
        let code = errno
        let reason = String(cString: strerror(code))
        return FetchError(
            code == ENOSPC || code == EDQUOT ? .noSpace : .writeFailed,
            "\(path): \(what): \(reason); make room, or name a folder that this process may write to"
        )
    }

    /// The size of an ordinary file, links followed; nil where there is none.
    static func byteCount(_ path: String) -> Int? {
        var information = stat()
        guard stat(path, &information) == 0, information.st_mode & S_IFMT == S_IFREG else { return nil }
        return Int(information.st_size)
    }

    static func isDirectory(_ path: String) -> Bool {
        var information = stat()
        return stat(path, &information) == 0 && information.st_mode & S_IFMT == S_IFDIR
    }

    /// Creates a folder and its parents.
    static func createDirectories(_ path: String) throws(FetchError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw FetchError(
                .writeFailed,
                "\(path): cannot be created: \(error.localizedDescription); name a folder that this process may write to"
            )
        }
    }

    /// Writes a small file atomically.
    static func write(_ bytes: [UInt8], to path: String) throws(FetchError) {
        do {
            try Data(bytes).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw FetchError(
                .writeFailed,
                "\(path): cannot be written: \(error.localizedDescription); make room, or name a folder that this process "
                    + "may write to"
            )
        }
    }

    /// Flushes a file's bytes, or a folder's entries, to disk.
    static func synchronize(_ path: String) throws(FetchError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw self.failure("cannot be opened", path) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw self.failure("cannot be written", path) }
    }

    /// Reads a small file; nil where there is none or it is larger than the limit.
    static func read(_ path: String, most: Int) -> [UInt8]? {
        guard let size = self.byteCount(path), size <= most, let data = FileManager.default.contents(atPath: path)
        else {
            return nil
        }
        return [UInt8](data)
    }

    /// Fails before anything is fetched if the disk is too small.
    static func checkSpace(_ bytes: Int, at directory: String) throws(FetchError) {
        var information = statvfs()
        guard statvfs(directory, &information) == 0 else { return }
        let (free, overflow) = Int(information.f_bavail).multipliedReportingOverflow(by: Int(information.f_frsize))
        guard !overflow, free < bytes else { return }
        throw FetchError(
            .noSpace,
            "\(directory): \(bytes) bytes must be fetched, but its file system has \(free) free; make room, or name "
                + "another folder"
        )
    }
}

/// A lock that processes hold with `flock`, like the hub's own tools; it ends with the process.
final class FileLock {
    private static let pause = Duration.milliseconds(100)

    private let descriptor: Int32

    private init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        close(self.descriptor)
    }

    /// Waits for a lock; the wait ends with the task.
    ///
    /// - Parameters:
    ///   - path: The lock's file, made where it does not exist.
    ///   - onWait: Called once if another process holds it.
    /// - Returns: The lock, held as long as the value lives.
    /// - Throws: ``FetchError`` where the file cannot be opened; `CancellationError`.
    static func take(_ path: String, onWait: () -> Void) async throws -> FileLock {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard descriptor >= 0 else { throw Files.failure("cannot be opened", path) }
        let lock = FileLock(descriptor: descriptor)
        var hasWaited = false
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK || errno == EINTR else { throw Files.failure("cannot be locked", path) }
            if !hasWaited { onWait() }
            hasWaited = true
            try await Task.sleep(for: self.pause)
        }
        return lock
    }
}
