// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// How many files a process may have open.
enum FileLimit {
    /// The command that becomes a program with at most this many.
    static func wrapper(_ count: Int) -> [String] {
        ["/bin/sh", "-c", "ulimit -n \"$0\"; exec \"$@\"", "\(count)"]
    }

    /// Lets this process have as many as the system allows it.
    static func raise() {
        var limit = rlimit()
        guard getrlimit(Self.openFiles, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(Self.openFiles, &limit)
    }

    private static let openFiles = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
}
