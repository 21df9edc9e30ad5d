// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Subprocess
import SystemPackage

/// What a round of `switchyard-bench rpc` found.
struct RPCFigures: Sendable {
    /// The median in microseconds of calls made one after another.
    var p50: Double
    /// The 99th percentile in microseconds.
    var p99: Double
    /// Calls per second with 64 in flight; nil where that was not measured.
    var callsPerSecond: Double?
}

/// Another implementation of the echo, as a program with a server's and a client's role.
///
/// `PROGRAM server --cpu N --address-file FILE` serves until its input closes; `PROGRAM client --cpu N --address A --bytes N
/// --calls N` prints `p50_us`, `p99_us` and `calls_per_second` as one line of JSON.
struct RPCPeer: Sendable {
    let name: String
    private let path: String

    init?(_ text: String) {
        let parts = text.split(separator: "=", maxSplits: 1)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
        self.name = String(parts[0])
        self.path = String(parts[1])
    }

    /// Measures one row.
    ///
    /// - Throws: ``ChildProcessError`` where the program fails or prints something else.
    func measure(bytes: Int, calls: Int, server: Int) async throws -> RPCFigures {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: file) }
        let child = ChildSpecification(
            name: self.name,
            arguments: ["server", "--cpu", "\(server)", "--address-file", file],
            addressFile: file
        )
        let ignore: @Sendable (ChildEvent) -> Void = { _ in }
        return try await ChildProcesses.run(
            [child],
            executable: self.path,
            onExit: .fail,
            startTimeout: .seconds(30),
            events: ignore
        ) { children in
            guard let address = children.running.first?.address else {
                throw ChildProcessError(description: "\(self.name)'s server ended")
            }
            let result = try await Subprocess.run(
                .path(FilePath(self.path)),
                arguments: [
                    "client", "--cpu", "0", "--address", address, "--bytes", "\(bytes)", "--calls", "\(calls)",
                ],
                output: .string(limit: 1 << 16),
                error: .string(limit: 1 << 16)
            )
            let text = result.standardOutput
            guard let object = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Double],
                let p50 = object["p50_us"], let p99 = object["p99_us"], let rate = object["calls_per_second"]
            else {
                throw ChildProcessError(
                    description: "\(self.name)'s client printed no figures: \(text)\(result.standardError)"
                )
            }
            return RPCFigures(p50: p50, p99: p99, callsPerSecond: rate)
        }
    }
}
