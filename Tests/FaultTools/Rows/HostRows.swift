// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which a host dies, stops or becomes unreachable, and comes back.
enum HostRows {
    /// What is done to a host, and undone.
    struct Outage: Sendable {
        var name: String
        var title: String
        var needsLab = false
        var begin: @Sendable (FaultCluster, HostProcess) async throws -> Void
        var end: @Sendable (FaultCluster, HostProcess) async throws -> Void
    }

    static let outages: [Outage] = [
        Outage(
            name: "sigkill",
            title: "SIGKILL a host under load",
            begin: { _, host in try host.process.signal(SIGKILL) },
            end: { cluster, host in try await cluster.restart(host) }
        ),
        Outage(
            name: "sigstop",
            title: "SIGSTOP, then SIGCONT",
            begin: { _, host in try host.process.signal(SIGSTOP) },
            end: { _, host in try host.process.signal(SIGCONT) }
        ),
        Outage(
            name: "partition",
            title: "Partition, heal",
            needsLab: true,
            begin: { cluster, host in
                if let place = host.place { try await cluster.lab?.cut(place) }
            },
            end: { cluster, host in
                if let place = host.place { try await cluster.lab?.heal(place) }
            }
        ),
    ]

    static var rows: [FaultRow] {
        self.outages.flatMap { outage in
            [
                FaultRow(name: outage.name, title: outage.title, variant: .replica, needsLab: outage.needsLab) {
                    try await Self.withReplica(outage, $0)
                },
                FaultRow(name: outage.name, title: outage.title, variant: .alone, needsLab: outage.needsLab) {
                    try await Self.alone(outage, $0)
                },
            ]
        }
    }

    private static func withReplica(_ outage: Outage, _ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 2, inLab: outage.needsLab) { cluster in
            let address = try await cluster.startGateway().listening(within: .seconds(300))
            let recovery = Stopwatch()
            let outcome = try await Story.run(context, at: address, time: context.timing.measured) { story in
                try await Self.play(outage, cluster, story, context, recovery)
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.requireSmooth()
            report.requireRecovery(recovery.seconds, limit: outage.needsLab ? FaultLimits.healing : nil)
            return report
        }
    }

    /// Deadlines that keep a stopped host from costing seconds in every step.
    static let deadlines = ["--encoder-deadline-ms", "400", "--decoder-deadline-ms", "200"]

    private static func alone(_ outage: Outage, _ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1, inLab: outage.needsLab) { cluster in
            let address = try await cluster.startGateway(arguments: Self.deadlines).listening(within: .seconds(300))
            let recovery = Stopwatch()
            let outcome = try await Story.run(
                context,
                at: address,
                time: context.timing.short,
                strictClients: 1
            ) { story in
                try await Self.play(outage, cluster, story, context, recovery)
            }
            var report = RowReport(outcome)
            report.requireHonest(reasons: [.timeout, .unavailable])
            // Two sparse layers of the encoder and two of the decoder, and a quarter for a busy machine.
            let limit = (2 * 0.4 + 2 * 0.2) * 1.25
            report.require(
                "no step longer than its layers' deadlines, \(Figure.seconds(limit))",
                report.figures.longestStall <= limit,
                found: Figure.seconds(report.figures.longestStall),
                speed: true
            )
            report.requireRecovery(recovery.seconds, limit: outage.needsLab ? FaultLimits.healing : nil)
            report.requireWhole(outcome, after: FaultLimits.healing)
            return report
        }
    }

    private static func play(
        _ outage: Outage,
        _ cluster: FaultCluster,
        _ story: Story,
        _ context: RowContext,
        _ recovery: Stopwatch
    ) async throws {
        guard let victim = cluster.hosts.first else { throw FaultError("no host was started") }
        try await outage.begin(cluster, victim)
        try await Task.sleep(for: context.timing.fault)
        try await outage.end(cluster, victim)
        recovery.set(try await story.watch.wait(for: victim.address, within: .seconds(300)) { $0?.state == .ready })
    }
}

extension RowReport {
    /// The host came back, and in time where there is a limit.
    mutating func requireRecovery(_ seconds: Double?, limit: Double?) {
        self.figures.recovery = seconds
        guard let limit else { return }
        self.require(
            "back within \(Figure.seconds(limit))",
            (seconds ?? .infinity) <= limit,
            found: Figure.seconds(seconds ?? 0),
            speed: true
        )
    }
}
