// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardProtos
import SwitchyardTypes

/// A cluster's description for a terminal.
struct ClusterReport {
    var model: ModelDescription
    var cluster: ClusterDescription
    /// How many columns a line may take.
    var columns = Terminal.columns
    /// Whether every expert's rows are shown, or a summary if there are too many for a line.
    var showsAllExperts = false

    /// The whole report.
    var text: String {
        [
            self.modelLine.wrapped(columns: self.columns), self.gatewayLine.wrapped(columns: self.columns), self.hosts,
            self.calls, self.picture.text, self.drops,
        ]
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
            usesColour: Terminal.usesColour,
            columns: self.columns,
            showsAllExperts: self.showsAllExperts
        )
    }

    private var modelLine: String {
        "\(Terminal.styled(self.model.name, .bold))  \(self.model.encoderBlocks == 0 ? "" : "\(self.model.encoderBlocks)+")\(self.model.decoderBlocks) blocks, "
            + (self.model.expertsPerLayer == 0
                ? "no experts, "
                : "\(self.model.sparseLayers.count) sparse layers of \(self.model.expertsPerLayer) experts, ")
            + "width \(self.model.modelWidth), fingerprint \(self.model.fingerprint.fingerprintText)"
            + (self.model.weightDType.type.map { ", weights \($0)" } ?? "")
    }

    private var gatewayLine: String {
        let load = self.cluster.gateway ?? GatewayLoad()
        let state =
            load.draining
            ? Terminal.styled("draining", .yellow)
            : self.cluster.complete ? Terminal.styled("complete", .green) : Terminal.styled("incomplete", .red)
        return "gateway \(state): \(load.queued) of \(load.queueLimit) queued, \(load.usedSlots) of \(load.batchSlots) "
            + "slots in use, \(load.decodedTokens) tokens decoded in \(load.steps) steps, up \(load.uptimeSeconds) s"
            + (self.cluster.rowDType.type.map { ", rows sent in \($0)" } ?? "")
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
                    NumberRanges.text(pool.experts.first?.experts ?? []), replica.weightDType.type?.description ?? "",
                    "\(replica.calls)", "\(replica.rows)",
                    "\(replica.failures)", "\(replica.ejections)",
                    Self.microseconds(replica.latencyP50Microseconds),
                    Self.microseconds(replica.latencyP99Microseconds),
                ])
            }
        }
        let details = self.cluster.pools.flatMap(\.replicas).filter { !$0.detail.isEmpty && $0.state != .ready }
            .map { "\($0.address): \($0.detail)".wrapped(columns: self.columns) }
        return ([table.text(columns: self.columns, keys: 2)] + details).joined(separator: "\n")
    }

    /// Calls of each pool, with those that were hedged or retried.
    private var calls: String {
        var table = TextTable([
            ("pool", .left), ("calls", .right), ("hedged", .right), ("hedges won", .right), ("retried", .right),
            ("rows dropped", .right), ("takes hot experts", .left),
        ])
        for pool in self.cluster.pools {
            let extras = pool.extra.map { "\($0.stack) \($0.layer): \(NumberRanges.text($0.experts))" }
            table.add([
                pool.name, "\(pool.calls)", "\(pool.hedges)", "\(pool.hedgesWon)", "\(pool.retries)",
                "\(pool.droppedRows)", extras.joined(separator: "; "),
            ])
        }
        return table.text(columns: self.columns)
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
}
