// SPDX-License-Identifier: Apache-2.0

import CommandKit

/// The programs that benchmarks start.
enum BenchPrograms {
    /// The path of `switchyard`, whose gateway and expert hosts are measured.
    ///
    /// - Returns: The program in the same folder as this one.
    /// - Throws: ``BenchError`` where it is not there.
    static func switchyard() throws -> String {
        guard let path = Programs.beside("switchyard") else {
            throw BenchError(
                "no switchyard next to \(Programs.this); build it there with `swift build --product switchyard`"
            )
        }
        return path
    }
}
