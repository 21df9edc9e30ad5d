// SPDX-License-Identifier: Apache-2.0

internal import Foundation

extension FaultCluster {
    /// The file with the addresses of a pool's hosts, one per line.
    package func targetsFile(of pool: String) -> String { "\(self.logs)/\(pool).targets" }

    /// Writes where a pool's hosts are; a rename puts the complete file in place.
    ///
    /// - Parameters:
    ///   - pool: The pool's name.
    ///   - hosts: Its hosts; nil for all that were started and not forgotten.
    /// - Throws: Errors of writing the file.
    package func writeTargets(of pool: String, hosts: [HostProcess]? = nil) throws {
        let hosts = hosts ?? self.hosts.filter { $0.name.hasPrefix("\(pool)/") }
        let text = hosts.map { "\($0.address)\n" }.joined()
        try Data(text.utf8).write(to: URL(fileURLWithPath: self.targetsFile(of: pool)), options: .atomic)
    }
}
