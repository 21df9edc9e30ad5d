// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The program that is tested, and the model that it measures.
enum BenchProgram {
    /// The `switchyard-bench` executable that was built beside these tests.
    static var path: String {
        let tests =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("switchyard-bench").path
    }

    /// The project's folder.
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// The trained miniature.
    static let miniature = root.appendingPathComponent("deploy/models/switch-mini").path
}
