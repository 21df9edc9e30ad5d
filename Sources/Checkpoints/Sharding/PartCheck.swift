// SPDX-License-Identifier: Apache-2.0

internal import Digests
internal import Foundation
internal import Synchronization

extension Checkpoint {
    /// Compares a part's files with the SHA-256 that its manifest has for each, and names what differs.
    ///
    /// A whole checkpoint has no manifest, and parts of early versions have no checksums: nothing is compared there. The
    /// weights of a packed part are left out, since they are read on first use; ``verifyPacked(_:)`` compares each of them.
    ///
    /// - Returns: The bytes that were compared.
    /// - Throws: `fingerprintMismatch` with the file, and the tensor where the manifest has its checksum; `notFound` or
    ///   `unreadable`.
    @discardableResult
    public func verifyFiles() throws(CheckpointError) -> Int {
        guard let manifest = self.manifest else { return 0 }
        let weights = Set(self.tensors.values.map(\.file))
        var total = 0
        for file in manifest.files ?? [] {
            let path = "\(self.directory)/\(file.name)"
            if manifest.packing != nil, weights.contains(path) { continue }
            let (byteCount, sha256) = try FileSystem.digest(path)
            total += byteCount
            guard byteCount == file.byteCount, sha256 == file.sha256.lowercased() else {
                if weights.contains(path) { try self.findDamage(manifest, in: path) }
                throw CheckpointError(
                    code: .fingerprintMismatch,
                    message: "has \(byteCount) bytes with the SHA-256 \(sha256), but \(ShardManifest.fileName) says "
                        + "\(file.byteCount) bytes with \(file.sha256.prefix(64)); copy the part again, or cut the checkpoint again",
                    file: path
                )
            }
        }
        return total
    }

    /// The first tensor of a file that differs from the manifest, by name.
    private func findDamage(_ manifest: ShardManifest, in path: String) throws(CheckpointError) {
        for (name, checksum) in (manifest.checksums ?? [:]).sorted(by: { $0.key < $1.key }) {
            guard let stored = self.tensors[name], stored.file == path else { continue }
            try Self.verify(stored, checksum)
        }
    }
}

/// Compares parts' files with their manifests on threads of its own, while the same pages are read to load the weights.
///
/// One thread for each part: SHA-256 is computed from front to back.
public final class PartCheck: Sendable {
    private let condition = NSCondition()
    private let results: Mutex<[Result<Int, CheckpointError>]>
    private let count: Int

    /// Loads weights while the parts are compared.
    ///
    /// - Parameters:
    ///   - checkpoints: The parts that are loaded.
    ///   - body: Loads them.
    /// - Returns: What the body returns, and how many bytes were compared.
    /// - Throws: What ``Checkpoint/verifyFiles()`` throws, even where the body fails too: then the damage is why.
    public static func during<R>(
        _ checkpoints: [Checkpoint],
        _ body: () throws -> R
    ) throws -> (result: R, byteCount: Int) {
        let check = PartCheck(checkpoints)
        let result: R
        do {
            result = try body()
        } catch {
            _ = try check.wait()
            throw error
        }
        return (result, try check.wait())
    }

    private init(_ checkpoints: [Checkpoint]) {
        self.results = Mutex([])
        self.count = checkpoints.count
        for checkpoint in checkpoints {
            Thread.detachNewThread {
                let result = Result { () throws(CheckpointError) in try checkpoint.verifyFiles() }
                self.condition.lock()
                self.results.withLock { $0.append(result) }
                self.condition.broadcast()
                self.condition.unlock()
            }
        }
    }

    private func wait() throws(CheckpointError) -> Int {
        self.condition.lock()
        while self.results.withLock({ $0.count }) < self.count { self.condition.wait() }
        self.condition.unlock()
        var total = 0
        for result in self.results.withLock({ $0 }) { total += try result.get() }
        return total
    }
}

extension FileSystem {
    /// Reads a file from its first byte to its last, without the mapping, so that a file that shrinks is an error.
    static func digest(_ path: String) throws(CheckpointError) -> (byteCount: Int, sha256: String) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw CheckpointError(
                code: errno == ENOENT ? .notFound : .unreadable,
                message:
                    "cannot be opened (\(String(cString: strerror(errno)))), though \(ShardManifest.fileName) lists it; "
                    + "copy the whole part again",
                file: path
            )
        }
        defer { close(descriptor) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { buffer.deallocate() }
        do throws(DigestError) {
            let digest = try RunningDigest(.sha256)
            var total = 0
            var count = 0
            repeat {
                count = read(descriptor, buffer.baseAddress, buffer.count)
                if count > 0 {
                    digest.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                    total += count
                }
            } while count > 0 || count < 0 && errno == EINTR
            if count == 0 { return (total, RunningDigest.hexadecimal(try digest.digest())) }
        } catch {
            throw CheckpointError(code: .unreadable, message: "\(error)", file: path)
        }
        let reason = String(cString: strerror(errno))
        throw CheckpointError(code: .unreadable, message: "cannot be read: \(reason)", file: path)
    }
}
