// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation
internal import NIOCore
internal import Synchronization

/// Files on the trainer's disk with calls of a shard's log.
///
/// A file has no name: it is removed as soon as it is open, so that its space is free once nothing in it is kept, and once the
/// trainer ends, however it ends. A log is of no use to the next trainer, which begins at a save.
///
/// One caller at a time, which may block.
final class LogFiles: Sendable {
    /// Why calls cannot be written or read.
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// Where a call is.
    struct Place: Sendable, Hashable {
        /// The file.
        var file: Int
        /// Its first byte in it.
        var offset: Int
        /// Its bytes.
        var bytes: Int
        /// Their XXH64.
        var sum: UInt64
    }

    private struct File {
        var descriptor: Int32
        var size = 0
        /// Calls in it that are kept.
        var calls = 0
    }

    private struct State {
        var files: [Int: File] = [:]
        var last = 0
    }

    /// The folder.
    let path: String
    /// Bytes of all files at most.
    let limit: Int
    /// Bytes after which another file is begun, so that space becomes free in parts.
    private let fileBytes: Int
    private let state = Mutex(State())
    private let size = Atomic(0)

    /// Names a folder for files.
    ///
    /// - Parameters:
    ///   - path: The folder, which exists.
    ///   - limit: Bytes of all files at most.
    init(_ path: String, limit: Int) {
        self.path = path
        self.limit = limit
        // At most some 128 files are open at a time.
        self.fileBytes = max(1 << 20, limit / 128)
    }

    deinit {
        for file in self.state.withLock({ $0.files.values.map(\.descriptor) }) { close(file) }
    }

    /// Makes a folder for files, and tries to write there.
    ///
    /// - Parameter path: The folder.
    /// - Throws: ``Failure`` with the system's reason.
    static func makeFolder(_ path: String) throws(Failure) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw Failure(description: "the folder for the log, \(path), cannot be made: \(error.localizedDescription)")
        }
        close(try Self.open(path))
    }

    /// Bytes of all files.
    var byteCount: Int { self.size.load(ordering: .relaxed) }

    /// A file without a name.
    private static func open(_ folder: String) throws(Failure) -> Int32 {
        var name = Array("\(folder)/switchyard-log-XXXXXX".utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else {
            throw Failure(description: "the folder for the log, \(folder): \(String(cString: strerror(errno)))")
        }
        unlink(name)
        // Another program that this process starts has no use for it.
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        return descriptor
    }

    /// Writes a call.
    ///
    /// - Parameter parts: Its bytes.
    /// - Returns: Where they are.
    /// - Throws: ``Failure`` with the system's reason, or where the files would become too large; what was written before stays.
    func write(_ parts: [ByteBuffer]) throws(Failure) -> Place {
        let bytes = parts.reduce(into: [UInt8]()) { $0 += $1.readableBytesView }
        return try self.state.withLock { state throws(Failure) in
            let size = state.files.values.reduce(0) { $0 + $1.size }
            guard bytes.count <= self.limit - size else {
                throw Failure(description: "the log's files have \(size) bytes, and may have \(self.limit)")
            }
            if state.files[state.last].map({ $0.size >= self.fileBytes }) ?? true {
                let descriptor = try Self.open(self.path)
                state.last += 1
                state.files[state.last] = File(descriptor: descriptor)
            }
            guard var file = state.files[state.last] else { throw Failure(description: "the log's file is gone") }
            let place = Place(file: state.last, offset: file.size, bytes: bytes.count, sum: XXHash64.hash(bytes))
            try self.write(bytes, to: file.descriptor, at: file.size)
            file.size += bytes.count
            file.calls += 1
            state.files[state.last] = file
            self.size.store(size + bytes.count, ordering: .relaxed)
            return place
        }
    }

    private func write(_ bytes: [UInt8], to descriptor: Int32, at offset: Int) throws(Failure) {
        var written = 0
        while written < bytes.count {
            let count = bytes[written...]
                .withUnsafeBytes {
                    pwrite(descriptor, $0.baseAddress, min($0.count, 64 << 20), off_t(offset + written))
                }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw Failure(description: "the log's file in \(self.path): \(String(cString: strerror(errno)))")
            }
            written += count
        }
    }

    /// Reads a call.
    ///
    /// - Parameter place: Where it is.
    /// - Returns: Its bytes.
    /// - Throws: ``Failure`` where they cannot be read, or are not those that were written.
    func read(_ place: Place) throws(Failure) -> ByteBuffer {
        let bytes = try self.state.withLock { state throws(Failure) in
            guard let descriptor = state.files[place.file]?.descriptor else {
                throw Failure(description: "the log's file in \(self.path) is closed")
            }
            return try self.read(place, from: descriptor)
        }
        guard XXHash64.hash(bytes) == place.sum else {
            throw Failure(
                description: "the log's file in \(self.path) is damaged: the checksum of a call is another one"
            )
        }
        return ByteBuffer(bytes: bytes)
    }

    private func read(_ place: Place, from descriptor: Int32) throws(Failure) -> [UInt8] {
        var reason: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: place.bytes) { target, read in
            while read < place.bytes {
                let rest = UnsafeMutableRawBufferPointer(target)[read..<place.bytes]
                let count = pread(
                    descriptor,
                    UnsafeMutableRawBufferPointer(rebasing: rest).baseAddress,
                    min(rest.count, 64 << 20),
                    off_t(place.offset + read)
                )
                if count < 0, errno == EINTR { continue }
                if count < 0 { reason = errno }
                guard count > 0 else { return }
                read += count
            }
        }
        guard bytes.count == place.bytes else {
            throw Failure(
                description: "the log's file in \(self.path) "
                    + (reason == 0
                        ? "is torn: it ends \(place.bytes - bytes.count) bytes too early"
                        : "cannot be read: \(String(cString: strerror(reason)))")
            )
        }
        return bytes
    }

    /// Forgets calls; a file goes with its last one.
    ///
    /// - Parameter places: Where they are.
    func free(_ places: [Place]) {
        guard !places.isEmpty else { return }
        self.state.withLock { state in
            for place in places {
                state.files[place.file]?.calls -= 1
                guard let file = state.files[place.file], file.calls <= 0 else { continue }
                close(file.descriptor)
                state.files[place.file] = nil
            }
            self.size.store(state.files.values.reduce(0) { $0 + $1.size }, ordering: .relaxed)
        }
    }
}
