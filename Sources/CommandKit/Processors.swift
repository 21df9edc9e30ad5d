// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The processors that this process may use.
package enum Processors {
    /// How many there are; a container's limit counts.
    package static var count: Int { max(1, ProcessInfo.processInfo.activeProcessorCount) }

    /// Lets others on the same processors go before the calling thread, and the threads that it starts, as `nice` does.
    ///
    /// - Parameter value: How far, from 0 to 19.
    package static func beNice(_ value: Int) {
        // PRIO_PROCESS and 0 are the calling thread on Linux. Where the system refuses, only times are different.
        _ = setpriority(0, 0, Int32(value))
    }
}

/// Memory of processes.
package enum ProcessMemory {
    /// The resident memory of a process: `812 MB`.
    ///
    /// - Parameter process: Its identifier.
    /// - Returns: Nil if the system does not say.
    package static func resident(of process: Int32) -> String? {
        guard let status = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
            let kilobytes = line.split(separator: " ").compactMap({ Double($0) }).first
        else { return nil }
        return String(format: "%.0f MB", kilobytes * 1024 / 1e6)
    }
}
