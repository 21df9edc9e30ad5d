// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import Foundation
import SwitchModel
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

/// A cluster of real processes on the miniature model, for one test.
enum TestCluster {
    /// The repository's root.
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// The trained miniature.
    static let miniature = "\(root)/deploy/models/switch-mini"

    /// The `switchyard` executable that was built with these tests.
    static var executable: String {
        let tests =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("switchyard").path
    }

    /// One entry of the miniature's `prompts.json`: what transformers answers.
    struct Prompt: Decodable, Sendable {
        var prompt: String
        var answer: String
        var tokenIDs: [UInt32]

        enum CodingKeys: String, CodingKey {
            case prompt
            case answer
            case tokenIDs = "token_ids"
        }
    }

    /// The miniature's prompts.
    static func prompts() throws -> [Prompt] {
        let file = URL(fileURLWithPath: "\(Self.miniature)/prompts.json")
        return try JSONDecoder().decode([Prompt].self, from: Data(contentsOf: file))
    }

    /// Starts a cluster, runs a body with a client of its gateway, and stops the cluster.
    ///
    /// - Parameters:
    ///   - pools: Number of pools.
    ///   - replicas: Expert hosts of each pool.
    ///   - gatewayArguments: Further arguments of the gateway.
    ///   - hostArguments: Further arguments of each expert host.
    ///   - model: The model's folder.
    ///   - onGatewayExit: What to do when the gateway exits early.
    ///   - body: The test.
    /// - Throws: What the body throws, or why the processes did not start.
    static func run(
        pools: Int,
        replicas: Int = 1,
        gatewayArguments: [String] = [],
        hostArguments: [String] = [],
        model: String = Self.miniature,
        onGatewayExit: ChildExitPolicy = .fail,
        body: @escaping @Sendable (GatewayClient, LocalCluster) async throws -> Void
    ) async throws {
        try await Self.runProcesses(
            pools: pools,
            replicas: replicas,
            gatewayArguments: gatewayArguments,
            hostArguments: hostArguments,
            model: model,
            onGatewayExit: onGatewayExit
        ) { cluster in
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                try await body(client, cluster)
            }
        }
    }

    /// Starts a cluster, runs a body, and stops the cluster.
    ///
    /// - Parameters:
    ///   - pools: Number of pools.
    ///   - replicas: Expert hosts of each pool.
    ///   - gatewayArguments: Further arguments of the gateway.
    ///   - hostArguments: Further arguments of each expert host.
    ///   - model: The model's folder.
    ///   - packing: How to pack the experts' shards; nil leaves them as they are.
    ///   - overrides: Configuration keys to override.
    ///   - adminListen: Where each process serves metrics and probes.
    ///   - onGatewayExit: What to do when the gateway exits early.
    ///   - onHostExit: What to do when a host exits early.
    ///   - log: Records the processes' events.
    ///   - body: The test.
    /// - Throws: What the body throws, or why the processes did not start.
    static func runProcesses(
        pools: Int,
        replicas: Int = 1,
        gatewayArguments: [String] = [],
        hostArguments: [String] = [],
        model: String = Self.miniature,
        packing: WeightStorage? = nil,
        overrides: [String: String] = [:],
        adminListen: String = "off",
        onGatewayExit: ChildExitPolicy = .fail,
        onHostExit: ChildExitPolicy = .accept,
        log: ProcessLog = ProcessLog(),
        body: @escaping @Sendable (LocalCluster) async throws -> Void
    ) async throws {
        let workspace = try ShardWorkspace.prepare(
            model: model,
            pools: pools,
            folder: nil,
            packing: packing,
            overrides: overrides
        )
        defer { workspace.discard() }
        var layout = LocalCluster.Layout(shards: workspace.folder, pools: workspace.pools)
        layout.replicas = replicas
        layout.gatewayThreads = 1
        layout.hostThreads = 1
        // A layer is late only if a test wants it to be, however busy the machine is; the later of two flags wins.
        layout.gatewayArguments =
            ["--encoder-deadline-ms", "60000", "--decoder-deadline-ms", "60000"] + gatewayArguments
        layout.hostArguments = hostArguments
        layout.onHostExit = onHostExit
        layout.onGatewayExit = onGatewayExit
        layout.gatewayAdminListen = adminListen
        layout.hostAdminListen = adminListen
        layout.startTimeout = .seconds(300)
        let events: @Sendable (ChildEvent) -> Void = { log.note($0) }
        do {
            try await LocalCluster.run(layout, executable: Self.executable, events: events) { cluster in
                try await body(cluster)
            }
        } catch {
            // The processes' output explains most failures, and is noise otherwise.
            print(log.lines.suffix(60).joined(separator: "\n"))
            throw error
        }
    }
}

/// Sends a signal to a process.
func signal(_ number: Int32, to process: ChildProcess) {
    #expect(kill(process.processIdentifier, number) == 0)
}
