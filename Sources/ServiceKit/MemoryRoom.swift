// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// How much more memory this process may take.
package enum MemoryRoom {
    /// Bytes that the system, and the control group if it has a limit, still have for this process; nil where neither says.
    package static var bytes: Int? {
        let system = Self.text("/proc/meminfo").flatMap(Self.available(in:))
        let group = Self.number("/sys/fs/cgroup/memory.max")
            .flatMap { limit in
                Self.number("/sys/fs/cgroup/memory.current").map { max(0, limit - $0 + Self.reclaimable) }
            }
        switch (system, group) {
        case (let system?, let group?): return min(system, group)
        case (let one, let other): return one ?? other
        }
    }

    /// `MemAvailable` of a `/proc/meminfo`, in bytes.
    ///
    /// - Parameter text: The file's text.
    /// - Returns: The bytes; nil if there is no such line.
    package static func available(in text: String) -> Int? {
        for line in text.split(separator: "\n") where line.hasPrefix("MemAvailable:") {
            guard let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else { return nil }
            let (bytes, overflow) = kibibytes.multipliedReportingOverflow(by: 1024)
            return overflow ? nil : bytes
        }
        return nil
    }

    /// Cached file pages that the group's limit counts, and that the system drops when memory is needed.
    private static var reclaimable: Int {
        guard let text = Self.text("/sys/fs/cgroup/memory.stat") else { return 0 }
        for line in text.split(separator: "\n") where line.hasPrefix("inactive_file ") {
            return line.split(separator: " ").last.flatMap { Int($0) } ?? 0
        }
        return 0
    }

    private static func text(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

    /// A file with one number; nil for "max".
    private static func number(_ path: String) -> Int? {
        Self.text(path).flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
}
