// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Subprocess
internal import SystemPackage

/// Programs that run to their end.
package enum Tool {
    /// Runs a program.
    ///
    /// - Parameters:
    ///   - name: Its path, or its name on the path.
    ///   - arguments: Its arguments.
    /// - Returns: What it printed.
    /// - Throws: ``FaultError`` with what it printed where it fails or is missing.
    @discardableResult
    package static func run(_ name: String, _ arguments: [String]) async throws -> String {
        guard let path = Self.path(name) else {
            throw FaultError("there is no program \(name); install it with: deploy/install-packages.sh faults")
        }
        let result = try await Subprocess.run(
            .path(FilePath(path)),
            arguments: Arguments(arguments),
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        )
        guard case .exited(0) = result.terminationStatus else {
            let words = arguments.joined(separator: " ")
            throw FaultError("\(name) \(words) ended with \(result.terminationStatus): \(result.standardError)")
        }
        return result.standardOutput
    }

    /// Where a program is.
    ///
    /// - Parameter name: Its path, or its name on the path.
    /// - Returns: Its path; nil where it is missing.
    package static func path(_ name: String) -> String? {
        if name.contains("/") { return name }
        let variable = ProcessInfo.processInfo.environment["PATH"] ?? ""
        // Debian keeps some of them in sbin, which is not on everyone's path.
        let folders = variable.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin", "/usr/bin"]
        return folders.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }
}
