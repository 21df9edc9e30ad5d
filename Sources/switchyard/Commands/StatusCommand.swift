// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos

/// `switchyard status`: the cluster as the gateway sees it.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show the model, the pools, their hosts and what was dropped.",
        discussion: """
            EXAMPLE
              switchyard status --endpoint gateway:7400
            """
    )

    @OptionGroup var client: ClientOptions

    func run() async throws {
        try await self.client.withClient { client in
            let model = try await client.describeModel()
            let cluster = try await client.describeCluster()
            Terminal.print(ClusterReport(model: model, cluster: cluster).text)
        }
    }
}

/// A cluster's description for a terminal.
struct ClusterReport {
    var model: ModelDescription
    var cluster: ClusterDescription

    /// The whole report.
    var text: String {
        [self.modelLine, self.gatewayLine, self.hosts, self.calls, self.picture.text, self.drops]
            .joined(separator: "\n\n")
    }

    /// Which experts took the tokens of each layer, with the pools that hold them.
    var picture: RoutingPicture {
        let experts = Int(self.model.expertsPerLayer)
        var pools = [String](repeating: "?", count: experts)
        for pool in self.cluster.pools {
            for expert in pool.experts.first?.experts ?? [] where Int(expert) < experts {
                pools[Int(expert)] = pool.name
            }
        }
        return RoutingPicture(
            layers: self.cluster.expertLoad.map { layer in
                RoutingPicture.Layer(
                    name: "\(layer.stack) \(layer.layer)",
                    rows: layer.rows,
                    dropped: self.cluster.dropped.filter { $0.stack == layer.stack && $0.layer == layer.layer }
                        .reduce(0) { $0 + $1.tokens }
                )
            },
            pools: pools,
            usesColour: Terminal.usesColour
        )
    }

    private var modelLine: String {
        let fingerprint = String(self.model.fingerprint, radix: 16)
        return
            "\(Terminal.styled(self.model.name, .bold))  \(self.model.encoderBlocks)+\(self.model.decoderBlocks) blocks, "
            + "\(self.model.sparseLayers.count) sparse layers of \(self.model.expertsPerLayer) experts, "
            + "width \(self.model.modelWidth), fingerprint \(fingerprint)"
            + (self.model.weightDType.name.map { ", weights \($0)" } ?? "")
    }

    private var gatewayLine: String {
        let load = self.cluster.gateway ?? GatewayLoad()
        let state =
            load.draining
            ? Terminal.styled("draining", .yellow)
            : self.cluster.complete ? Terminal.styled("complete", .green) : Terminal.styled("incomplete", .red)
        return "gateway \(state): \(load.queued) of \(load.queueLimit) queued, \(load.usedSlots) of \(load.batchSlots) "
            + "slots in use, \(load.decodedTokens) tokens decoded in \(load.steps) steps, up \(load.uptimeSeconds) s"
            + (self.cluster.rowDType.name.map { ", rows sent in \($0)" } ?? "")
    }

    private var hosts: String {
        var table = TextTable([
            ("pool", .left), ("host", .left), ("zone", .left), ("state", .left), ("experts", .left), ("weights", .left),
            ("calls", .right), ("rows", .right), ("failures", .right), ("ejected", .right), ("p50", .right),
            ("p99", .right),
        ])
        for pool in self.cluster.pools {
            for replica in pool.replicas {
                table.add([
                    pool.name, replica.address, replica.zone, "\(replica.state)",
                    Self.ranges(pool.experts.first?.experts ?? []), replica.weightDType.name ?? "",
                    "\(replica.calls)", "\(replica.rows)",
                    "\(replica.failures)", "\(replica.ejections)",
                    Self.microseconds(replica.latencyP50Microseconds),
                    Self.microseconds(replica.latencyP99Microseconds),
                ])
            }
        }
        let details = self.cluster.pools.flatMap(\.replicas).filter { !$0.detail.isEmpty && $0.state != .ready }
            .map { "\($0.address): \($0.detail)" }
        return ([table.text] + details).joined(separator: "\n")
    }

    /// What was tried more than once, by pool.
    private var calls: String {
        var table = TextTable([
            ("pool", .left), ("calls", .right), ("hedged", .right), ("hedges won", .right), ("retried", .right),
            ("rows dropped", .right), ("takes hot experts", .left),
        ])
        for pool in self.cluster.pools {
            let extras = pool.extra.map { "\($0.stack) \($0.layer): \(Self.ranges($0.experts))" }
            table.add([
                pool.name, "\(pool.calls)", "\(pool.hedges)", "\(pool.hedgesWon)", "\(pool.retries)",
                "\(pool.droppedRows)", extras.joined(separator: "; "),
            ])
        }
        return table.text
    }

    private var drops: String {
        let total = self.cluster.dropped.reduce(0) { $0 + $1.tokens }
        guard total > 0 else { return "dropped: none of \(self.cluster.routedTokens) routed tokens" }
        let lines = self.cluster.dropped.map {
            "  \($0.stack) \($0.layer)  \(GenerationReport.protocolName($0.reason))  \($0.tokens)"
        }
        return (["dropped: \(total) of \(self.cluster.routedTokens) routed tokens"] + lines).joined(separator: "\n")
    }

    private static func microseconds(_ value: UInt64) -> String {
        value == 0 ? "" : String(format: "%.2f ms", Double(value) / 1000)
    }

    /// `0-3, 6` for 0, 1, 2, 3, 6.
    static func ranges(_ numbers: [UInt32]) -> String {
        var parts: [String] = []
        var index = 0
        let sorted = numbers.sorted()
        while index < sorted.count {
            var end = index
            while end + 1 < sorted.count, sorted[end + 1] == sorted[end] + 1 { end += 1 }
            parts.append(end == index ? "\(sorted[index])" : "\(sorted[index])-\(sorted[end])")
            index = end + 1
        }
        return parts.joined(separator: ", ")
    }
}
