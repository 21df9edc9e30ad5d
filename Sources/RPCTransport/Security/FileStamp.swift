// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Distinguishes one state of a file from another without reading it.
///
/// The inode shows a replaced file; the time of change shows changed permissions.
struct FileStamp: Sendable, Hashable {
    var device: UInt64
    var inode: UInt64
    var byteCount: Int64
    var modifiedSeconds: Int64
    var modifiedNanoseconds: Int64
    var changedSeconds: Int64
    var changedNanoseconds: Int64
    var mode: UInt32

    /// Examines a file; links are followed.
    ///
    /// - Parameter path: The file's path.
    /// - Returns: Its stamp, or nil where there is no file or it cannot be examined.
    static func of(_ path: String) -> FileStamp? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        #if canImport(Darwin)
        let modified = status.st_mtimespec
        let changed = status.st_ctimespec
        #else
        let modified = status.st_mtim
        let changed = status.st_ctim
        #endif
        return FileStamp(
            device: UInt64(truncatingIfNeeded: status.st_dev),
            inode: UInt64(truncatingIfNeeded: status.st_ino),
            byteCount: Int64(status.st_size),
            modifiedSeconds: Int64(modified.tv_sec),
            modifiedNanoseconds: Int64(modified.tv_nsec),
            changedSeconds: Int64(changed.tv_sec),
            changedNanoseconds: Int64(changed.tv_nsec),
            mode: UInt32(status.st_mode)
        )
    }
}
