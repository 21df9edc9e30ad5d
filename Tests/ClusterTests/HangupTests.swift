// SPDX-License-Identifier: Apache-2.0

import CommandKit
import FaultTools
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

/// SIGHUP, which a closed terminal sends.
@Suite("A terminal that is closed", .serialized)
struct HangupTests {
    /// Longer than anything here takes: only a hang runs into it.
    private static let patience = Duration.seconds(300)

    private static func waitUntil<Value>(_ what: String, _ condition: () throws -> Value?) async throws -> Value {
        let deadline = ContinuousClock.now.advanced(by: Self.patience)
        while true {
            if let value = try condition() { return value }
            guard ContinuousClock.now < deadline else { throw FaultError("never: \(what)") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hangup-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await body(folder)
    }

    @Test("a gateway and its hosts drain on SIGHUP; more of them cut off nothing")
    func services() async throws {
        let log = ProcessLog()
        try await TestCluster.runProcesses(pools: 1, onGatewayExit: .accept, log: log) { cluster in
            let gateway = try #require(cluster.gateway.running.first)
            let host = try #require(cluster.hosts.running.first)
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                let request = GenerateRequest(
                    input: .text("Now is the winter of our <extra_id_0>"),
                    parameters: GenerationParameters(maxNewTokens: 200, minNewTokens: 200)
                )
                var tokens = 0
                for try await event in try await client.generateStream(request) {
                    guard case .token = event else { continue }
                    tokens += 1
                    // The system and the shell each send one.
                    if tokens == 3 || tokens == 20 { signal(SIGHUP, to: gateway) }
                }
                #expect(tokens == 200)
            }
            let gatewayEnd = try await Self.waitUntil("the gateway ends") { log.exit(of: "gateway") }
            #expect(gatewayEnd.contains("exited(0)"))
            signal(SIGHUP, to: host)
            let hostEnd = try await Self.waitUntil("the host ends") { log.exit(of: "pool-0/0") }
            #expect(hostEnd.contains("exited(0)"))
        }
    }

    @Test("under nohup a host outlives its terminal")
    func nohup() async throws {
        let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
        defer { workspace.discard() }
        try await ProcessKeeper.with { keeper in
            let host = keeper.start(
                ProcessSpecification(
                    name: "host",
                    executable: "/usr/bin/env",
                    arguments: [
                        "nohup", TestCluster.executable, "expert-host", "--shard", "\(workspace.folder)/pool-0",
                        "--listen", "127.0.0.1:0", "--admin-listen", "off", "--threads", "1", "--address-file",
                        "\(workspace.folder)/address",
                    ],
                    addressFile: "\(workspace.folder)/address",
                    logFile: "\(workspace.folder)/log",
                    environment: [:]
                )
            )
            let address = try await host.listening(within: Self.patience)
            for _ in 0..<3 { try host.signal(SIGHUP) }
            let health = try await Commands.run(TestCluster.executable, ["health", "--endpoint", address])
            #expect(health.status == 0, "\(health.errors)")
            #expect(host.exit == nil && !host.lines.contains { $0.contains("draining") })
            try host.signal(SIGTERM)
            #expect(try await host.ended(within: Self.patience).code == 0)
        }
    }

    @Test("`up` in a terminal that is closed ends, and leaves neither processes nor files")
    func terminal() async throws {
        try await self.inFolder { folder in
            try await ProcessKeeper.with { keeper in
                // `script` gives it a terminal, which is gone as soon as `script` is killed.
                let terminal = keeper.start(
                    ProcessSpecification(
                        name: "terminal",
                        executable: "/usr/bin/env",
                        arguments: [
                            "script", "-qefc",
                            "'\(TestCluster.executable)' up '\(TestCluster.miniature)' --pools 1 --listen 127.0.0.1:0",
                            "/dev/null",
                        ],
                        addressFile: "\(folder)/never",
                        logFile: "\(folder)/log",
                        environment: ["TMPDIR": folder, "SHELL": "/bin/sh"]
                    )
                )
                let (up, children) = try await Self.waitUntil("the cluster runs") {
                    guard terminal.lines.contains(where: { $0.contains("ready on ") }),
                        let root = terminal.identifier,
                        let up = ProcessTree.descendants(of: root)
                            .first(where: { ProcessTree.children(of: $0).count >= 2 })
                    else { return nil as (Int32, [Int32])? }
                    return (up, ProcessTree.children(of: up))
                }
                try terminal.signal(SIGKILL)
                _ = try await terminal.ended(within: Self.patience)
                _ = try await Self.waitUntil("every process ends") {
                    ([up] + children).contains(where: ProcessTree.isRunning) ? nil : true
                }
                let left = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [])
                    .filter { $0.hasPrefix("switchyard-") }
                #expect(left.isEmpty, "\(left)")
            }
        }
    }
}
