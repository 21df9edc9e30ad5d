// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The project's programs, which find each other in their common folder.
package enum Programs {
    /// The path of the running program.
    package static var this: String {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    }

    /// The path of a program in the same folder as this one.
    ///
    /// - Parameter name: The program's name: `switchyard`.
    /// - Returns: Nil if no such program is installed there.
    package static func beside(_ name: String) -> String? {
        let path = URL(fileURLWithPath: self.this).deletingLastPathComponent().appendingPathComponent(name).path
        return FileManager.default.isExecutableFile(atPath: path) ? path : nil
    }
}
