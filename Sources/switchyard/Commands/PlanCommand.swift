// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import ExpertPooling
import Foundation
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes

/// `switchyard plan`: which pools besides their own should take hot experts' rows.
struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Show which experts are hot, which additional pools should take their rows, and what that gains.",
        discussion: """
            Nothing is changed; a gateway that runs with --replicate-hot-experts applies such plans itself.

            EXAMPLE
              switchyard plan --endpoint gateway:7400
            """
    )

    @OptionGroup var client: ClientOptions

    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        try await self.client.withClient { client in
            let report = PlanReport(try await client.describeCluster())
            Terminal.print(self.json ? try report.json() : report.text)
        }
    }
}

/// The plan for a cluster as its gateway describes it.
struct PlanReport {
    let cluster: ClusterDescription
    let configuration: PlacementPlannerConfiguration
    let plan: PlacementPlan
    let advice: [PlacementAdvice]

    /// Makes the plan.
    ///
    /// - Parameters:
    ///   - cluster: The gateway's description.
    ///   - configuration: When an expert gets another pool.
    init(_ cluster: ClusterDescription, configuration: PlacementPlannerConfiguration = .defaults) {
        let snapshot = PlacementSnapshot(cluster)
        var planner = PlacementPlanner(configuration: configuration)
        self.cluster = cluster
        self.configuration = configuration
        self.plan = planner.plan(for: snapshot, now: .now)
        self.advice = planner.advice(for: snapshot)
    }

    /// The report for people.
    var text: String {
        [self.layers, self.changes, self.advised].filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    /// The report for programs; shares are fractions.
    func json() throws -> String {
        struct Layer: Encodable {
            var layer: String
            var isMeasured: Bool
            var worstPool: String
            var worstBefore, worstAfter, balanceBefore, balanceAfter, floor: Double
        }
        struct Change: Encodable {
            var layer: String
            var expert: Int
            var share: Double
            var before, after, reasons: [String]
        }
        struct Advice: Encodable {
            var shardOf, hostsOf: String
            var worstBefore, worstAfter: Double
        }
        struct Report: Encodable {
            var layers: [Layer]
            var changes: [Change]
            var advice: [Advice]
        }
        let report = Report(
            layers: self.plan.layers.map {
                Layer(
                    layer: "\($0.layer)",
                    isMeasured: $0.isMeasured,
                    worstPool: $0.worstPool,
                    worstBefore: $0.worstBefore,
                    worstAfter: $0.worstAfter,
                    balanceBefore: $0.balanceBefore,
                    balanceAfter: $0.balanceAfter,
                    floor: $0.floor
                )
            },
            changes: self.plan.changes.map {
                Change(
                    layer: "\($0.layer)",
                    expert: $0.expert,
                    share: $0.share,
                    before: $0.before,
                    after: $0.after,
                    reasons: $0.reasons.map(\.description)
                )
            },
            advice: self.advice.map {
                Advice(
                    shardOf: $0.shardOf,
                    hostsOf: $0.hostsOf,
                    worstBefore: $0.worstBefore,
                    worstAfter: $0.worstAfter
                )
            }
        )
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(report), as: UTF8.self)
    }

    // MARK: - For people

    private var layers: String {
        guard !self.plan.layers.isEmpty else { return "no token has been routed yet" }
        var table = TextTable([
            ("layer", .left), ("busiest", .left), ("its share", .right), ("planned", .right), ("at best", .right),
            ("max/mean", .right), ("planned", .right),
        ])
        for layer in self.plan.layers where layer.isMeasured {
            table.add([
                "\(layer.layer)", layer.worstPool, Self.percent(layer.worstBefore), Self.percent(layer.worstAfter),
                Self.percent(layer.floor), String(format: "%.2f", layer.balanceBefore),
                String(format: "%.2f", layer.balanceAfter),
            ])
        }
        let few = self.plan.layers.count { !$0.isMeasured }
        guard few > 0 else { return table.text }
        let note =
            "\(few) of \(self.plan.layers.count) layers have had fewer than \(Int(self.configuration.minimumRows)) rows and "
            + "are not planned"
        return few == self.plan.layers.count ? note : table.text + "\n" + note
    }

    private var changes: String {
        guard !self.plan.changes.isEmpty else {
            let extras = self.plan.extras.values.reduce(0) { $0 + $1.values.reduce(0) { $0 + $1.count } }
            return extras == 0
                ? "nothing to change: no additional pool for an expert would lower a layer's busiest share by "
                    + "\(Int(self.configuration.minimumGain * 100)) %"
                : "nothing to change: \(extras) additional pools for hot experts are in force"
        }
        var table = TextTable([
            ("layer", .left), ("expert", .right), ("share", .right), ("pools now", .left), ("planned", .left),
            ("why", .left),
        ])
        for change in self.plan.changes {
            table.add([
                "\(change.layer)", "\(change.expert)", Self.percent(change.share),
                change.before.joined(separator: " + "),
                change.after.joined(separator: " + "),
                change.reasons.map(\.description).joined(separator: "; "),
            ])
        }
        return table.text
    }

    private var advised: String {
        self.advice
            .map { advice in
                let hosts =
                    self.cluster.pools.first { $0.name == advice.hostsOf }?.replicas.filter { $0.state == .ready }
                    .map(\.address) ?? []
                return "load the shard of \(advice.shardOf) on the hosts of \(advice.hostsOf) too "
                    + "(\(hosts.joined(separator: ", "))): expert-host --shard \(advice.hostsOf) --shard \(advice.shardOf); "
                    + "with a plan for it the busiest share would be \(Self.percent(advice.worstAfter)) instead of "
                    + "\(Self.percent(advice.worstBefore)) on average"
            }
            .joined(separator: "\n")
    }

    private static func percent(_ fraction: Double) -> String { String(format: "%.1f %%", 100 * fraction) }
}

extension PlacementSnapshot {
    /// The snapshot of a cluster as its gateway describes it.
    ///
    /// - Parameter cluster: The gateway's description.
    init(_ cluster: ClusterDescription) {
        self.init()
        for pool in cluster.pools {
            self.pools[pool.name] = Pool(
                replicas: pool.replicas.count { $0.state == .ready },
                spare: Self.experts(pool.spare)
            )
            for (layer, experts) in Self.experts(pool.extra) {
                for expert in experts { self.extras[layer, default: [:]][expert, default: []].append(pool.name) }
            }
        }
        var owners: [SparseLayer: [Int: String]] = [:]
        for pool in cluster.pools {
            for (layer, experts) in Self.experts(pool.experts) {
                for expert in experts { owners[layer, default: [:]][expert] = pool.name }
            }
        }
        let uptime = max(1, Double(cluster.gateway?.uptimeSeconds ?? 0))
        for load in cluster.expertLoad {
            guard let stack = load.stack.stack else { continue }
            let layer = SparseLayer(stack: stack, block: Int(load.layer))
            let count = max(load.rows.count, load.rowsPerSecond.count)
            // An older gateway only reports totals since its start.
            let rates =
                load.rowsPerSecond.isEmpty
                ? load.rows.map { Double($0) / uptime } : load.rowsPerSecond.map { Double($0) }
            self.layers[layer] = Layer(
                primary: (0..<count).map { owners[layer]?[$0] },
                rowsPerSecond: rates,
                observedRows: load.rows.reduce(0) { $0 + Double($1) }
            )
        }
    }

    private static func experts(_ messages: [LayerExperts]) -> [SparseLayer: Set<Int>] {
        messages.reduce(into: [:]) { result, message in
            guard let stack = message.stack.stack else { return }
            let layer = SparseLayer(stack: stack, block: Int(message.layer))
            result[layer, default: []].formUnion(message.experts.map { Int($0) })
        }
    }
}
