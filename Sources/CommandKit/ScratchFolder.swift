// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes

/// A temporary folder that does not outlive its process: the process removes it or, if it was killed, the next start
/// does.
///
/// Next to the folder is a file that its process keeps locked while it runs; the system frees the lock however the
/// process ends. A folder whose lock is free is abandoned.
package final class ScratchFolder: Sendable {
    /// The prefix of all such folders' names.
    package static let prefix = "switchyard-"
    private static let lockSuffix = ".lock"

    /// The folder's path.
    package let path: String
    private let lockPath: String
    private let lock: Int32

    /// Creates a folder in the system's temporary folder that only this user can read, and removes abandoned ones.
    ///
    /// - Parameter parent: Where to create it; nil for the system's temporary folder.
    /// - Throws: ``ChildProcessError`` if it cannot be created.
    package init(in parent: String? = nil) throws {
        let parent = parent ?? FileManager.default.temporaryDirectory.path
        Self.removeAbandoned(in: parent)
        while true {
            let path = "\(parent)/\(Self.prefix)\(UUID().uuidString)"
            let lockPath = path + Self.lockSuffix
            let descriptor = open(lockPath, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw Self.failure("create", lockPath) }
            // Between its creation and its lock another start may take the file for abandoned; then it is gone.
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0, Self.isSameFile(descriptor, lockPath) else {
                close(descriptor)
                continue
            }
            guard mkdir(path, 0o700) == 0 else {
                let error = Self.failure("create", path)
                unlink(lockPath)
                close(descriptor)
                throw error
            }
            self.path = path
            self.lockPath = lockPath
            self.lock = descriptor
            return
        }
    }

    deinit { close(self.lock) }

    /// Removes the folder and all that it holds.
    package func remove() {
        Self.remove(self.path, lockPath: self.lockPath)
    }

    /// Removes the folders of this user's processes that were killed.
    ///
    /// - Parameter parent: Where the folders lie.
    package static func removeAbandoned(in parent: String) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []
        for name in names where name.hasPrefix(Self.prefix) && name.hasSuffix(Self.lockSuffix) {
            let lockPath = "\(parent)/\(name)"
            let descriptor = open(lockPath, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            var status = stat()
            guard fstat(descriptor, &status) == 0, status.st_uid == getuid(),
                flock(descriptor, LOCK_EX | LOCK_NB) == 0, Self.isSameFile(descriptor, lockPath)
            else { continue }
            Self.remove(String(lockPath.dropLast(Self.lockSuffix.count)), lockPath: lockPath)
        }
    }

    /// The lock file goes last, and stays if part of the folder does, so that the next start tries again.
    private static func remove(_ path: String, lockPath: String) {
        try? FileManager.default.removeItem(atPath: path)
        if !FileManager.default.fileExists(atPath: path) { unlink(lockPath) }
    }

    private static func isSameFile(_ descriptor: Int32, _ path: String) -> Bool {
        var held = stat()
        var named = stat()
        return fstat(descriptor, &held) == 0 && lstat(path, &named) == 0 && held.st_ino == named.st_ino
            && held.st_dev == named.st_dev
    }

    private static func failure(_ action: String, _ path: String) -> ChildProcessError {
        let reason = String(cString: strerror(errno))
        return ChildProcessError(
            description: "cannot \(action) \(path): \(reason); make room there, or set TMPDIR to another folder"
        )
    }
}
