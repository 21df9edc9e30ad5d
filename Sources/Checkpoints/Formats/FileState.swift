// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What the file system says about a file, to tell whether its content may have changed.
struct FileState: Sendable, Hashable {
    /// What became of a file.
    enum Change: Sendable, Hashable {
        /// Nothing.
        case none
        /// Links, owner or mode, but not the content.
        case attributes
        /// Another file has the name, or none: a process that mapped the old one still has it, unchanged.
        case replaced
        /// The content may be another: how one can tell.
        case content(String)
    }

    var device: UInt64
    var inode: UInt64
    var byteCount: Int
    /// Nanoseconds since 1970 of the last change of the content, and of the content or the attributes.
    var modified: Int
    var changed: Int
    var links: UInt64
    var mode: UInt32
    var owner: UInt32
    var group: UInt32

    /// Takes over what `stat` or `fstat` says.
    init(_ information: stat) {
        func nanoseconds(_ time: timespec) -> Int { time.tv_sec &* 1_000_000_000 &+ time.tv_nsec }
        self.device = UInt64(information.st_dev)
        self.inode = UInt64(information.st_ino)
        self.byteCount = Int(information.st_size)
        #if canImport(Darwin)
        self.modified = nanoseconds(information.st_mtimespec)
        self.changed = nanoseconds(information.st_ctimespec)
        #else
        self.modified = nanoseconds(information.st_mtim)
        self.changed = nanoseconds(information.st_ctim)
        #endif
        self.links = UInt64(information.st_nlink)
        self.mode = UInt32(information.st_mode)
        self.owner = information.st_uid
        self.group = information.st_gid
    }

    /// The state of the file that has a name now; nil where there is none.
    init?(path: String) {
        var information = stat()
        guard stat(path, &information) == 0 else { return nil }
        self.init(information)
    }

    /// What became of the file.
    ///
    /// A program that overwrites a file and then restores its times leaves a change of `ctime` alone, which no program can
    /// set; a change of links, owner or mode explains one, and content is not changed by it.
    ///
    /// - Parameter now: The state of the file that has the name now; nil where there is none.
    /// - Returns: The gravest change that it shows.
    func change(to now: FileState?) -> Change {
        guard let now, now.device == self.device, now.inode == self.inode else { return .replaced }
        if now.byteCount != self.byteCount {
            return .content("it had \(self.byteCount) bytes, and now has \(now.byteCount)")
        }
        if now.modified != self.modified { return .content("it was written to") }
        if now.changed == self.changed { return .none }
        let attributes = (self.links, self.mode, self.owner, self.group)
        if attributes != (now.links, now.mode, now.owner, now.group) { return .attributes }
        return .content("it was written to, and its time set back")
    }
}
