// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which a host is another one after each restart, or leaves as soon as it has work.
enum TurncoatRows {
    static var rows: [FaultRow] {
        FaultVariant.allCases.flatMap { variant in
            [
                FaultRow(
                    name: "flapping",
                    title: "Weights alternate between int8 and the checkpoint's type",
                    variant: variant,
                    isHostile: true
                ) { try await Self.flapping($0, variant) },
                FaultRow(name: "goaway", title: "GOAWAY, then silence", variant: variant, isHostile: true) {
                    try await Self.left($0.hostile, variant)
                },
            ]
        }
    }

    /// Beside a host that keeps its type, the other type is refused and its own type is taken back; alone, each type is
    /// served.
    private static func flapping(_ context: RowContext, _ variant: FaultVariant) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let fickle: HostProcess
            switch variant {
            case .replica: fickle = try await cluster.startHost(pool: 0)
            case .alone: fickle = try cluster.firstHost
            }
            let arguments = variant == .alone ? HostRows.deadlines : []
            let gateway = try await cluster.startGateway(arguments: arguments)
            let findings = Findings()
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.hostile,
                gateway: gateway
            ) { story in
                for turn in 0..<4 {
                    let isOther = turn % 2 == 0
                    try fickle.process.signal(SIGTERM)
                    try await cluster.restart(fickle, arguments: isOther ? ["--dtype", "int8"] : [])
                    let expected: ReplicaState = variant == .replica && isOther ? .mismatched : .ready
                    let name = isOther ? "int8" : "the checkpoint's type"
                    let time = try? await story.watch.wait(for: fickle.address, within: FaultLimits.verdict) {
                        $0?.state == expected
                    }
                    let replica = story.watch.replica(fickle.address)
                    findings.require(
                        "restart \(turn + 1), \(name): \(expected)",
                        time != nil,
                        found: time.map { Figure.seconds($0.seconds) }
                            ?? replica.map { "\($0.state) (\($0.detail))" } ?? "not named"
                    )
                    try await Task.sleep(for: context.timing.hostile / 8)
                }
            }
            var report = RowReport(outcome)
            switch variant {
            case .replica: report.requireUnnoticed()
            case .alone:
                let load = report.figures.load
                report.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
                report.notes.append("\(load.wrongIDs) answers by int8 alone differ")
                report.requireWhole(outcome, after: FaultLimits.healing)
            }
            findings.add(to: &report)
            return report
        }
    }

    private static func left(_ context: RowContext, _ variant: FaultVariant) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let honest = try cluster.firstHost.address
            return try await GoAwayRelay.with(before: try await ReplyRows.behindLiar(cluster, variant)) { relay in
                let report = try await ReplyRows.story(context, cluster, honest, relay.address, variant, .silence) {
                    relay.leave(true)
                    try await Task.sleep(for: context.timing.fault)
                } truth: {
                    relay.leave(false)
                }
                var told = report
                told.require("connections were left", relay.left > 0, found: "\(relay.left)")
                // Waits grow while connections are lost at once.
                told.require(
                    "connections <= \(FaultLimits.leftConnections)",
                    relay.left <= FaultLimits.leftConnections,
                    found: "\(relay.left)"
                )
                let limit = variant == .replica ? FaultLimits.stall : FaultLimits.steps
                told.require(
                    "stall <= \(Figure.seconds(limit))",
                    told.figures.longestStall <= limit,
                    found: Figure.seconds(told.figures.longestStall),
                    speed: true
                )
                return told
            }
        }
    }
}
