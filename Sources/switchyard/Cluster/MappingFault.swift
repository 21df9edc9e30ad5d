// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import Synchronization

/// Says why the process ends when a mapped weight file has become shorter than it was (`SIGBUS`).
///
/// The handler only calls what POSIX allows in one (`poll`, `alarm`, `write`, `_exit`): the line is prepared beforehand.
enum MappingFault {
    /// The exit status, `EX_SOFTWARE` of sysexits.h.
    static let status: Int32 = 70

    // Safety: written once, before the handler that reads them is installed; never freed.
    nonisolated(unsafe) private static var line: UnsafePointer<UInt8>?
    nonisolated(unsafe) private static var count = 0
    private static let isInstalled = Mutex(false)

    /// Installs the handler, once.
    ///
    /// - Parameter folders: The folders whose files are mapped, for the line.
    static func report(_ folders: [String]) {
        let isFirst = self.isInstalled.withLock { isInstalled in
            defer { isInstalled = true }
            return !isInstalled
        }
        guard isFirst else { return }
        let text =
            "error: SIGBUS: a mapped weight file was cut, or its disk cannot be read; the files are in "
            + "\(folders.joined(separator: ", ")); replace files by renaming, check the disk, and start again\n"
        let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: text.utf8.count)
        for (index, byte) in text.utf8.enumerated() { bytes[index] = byte }
        self.count = min(text.utf8.count, 4096)
        self.line = UnsafePointer(bytes)
        signal(SIGBUS) { _ in
            // A full pipe behind standard error must not keep the process.
            if let line = MappingFault.line { StandardStream.writeLastWords(line, count: MappingFault.count) }
            _exit(MappingFault.status)
        }
    }
}
