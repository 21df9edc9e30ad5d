// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which the weights of a host that starts are damaged.
enum WeightRows {
    static var rows: [FaultRow] {
        FaultVariant.allCases.flatMap { variant in
            [
                FaultRow(name: "zeroed", title: "Five zeroed pages in a part", variant: variant, isHostile: true) {
                    try await Self.zeroed($0, variant, packed: false)
                },
                FaultRow(
                    name: "zeroed-packed",
                    title: "Five zeroed pages in a packed part",
                    variant: variant,
                    isHostile: true
                ) { try await Self.zeroed($0, variant, packed: true) },
            ]
        }
    }

    /// A host is killed, its part is damaged, and it starts again, which must be refused by name; then the part is repaired.
    private static func zeroed(
        _ context: RowContext,
        _ variant: FaultVariant,
        packed: Bool
    ) async throws -> RowReport {
        try await context.withVictim(variant, packed: packed) { cluster, victim, damage in
            var (report, outcome) = try await cluster.playReturn(of: victim, context, variant) { story, findings in
                try victim.process.signal(SIGKILL)
                _ = try await victim.process.ended(within: .seconds(300))
                try damage.zero(pages: 5, at: 0.4)
                try await story.missHost(variant)
                let begin = ContinuousClock.now
                let damaged = try await cluster.startAgain(victim)
                // A packed part is mapped and not read as a whole before it serves.
                let limit = packed ? FaultLimits.backgroundCheck : .seconds(120)
                try await findings.requireRefusal(of: damaged, naming: damage.part, since: begin, within: limit)
                try damage.repair()
            }
            if packed {
                report.requireShortExposure()
                report.requireWhole(outcome, after: FaultLimits.healing)
            }
            switch variant {
            case .replica where packed: report.requireAnswers()
            case .replica: report.requireUnnoticed()
            case .alone where packed: report.requireAnswers(strict: true)
            case .alone:
                report.requireHonest(reasons: [.timeout, .unavailable])
                report.requireWhole(outcome, after: FaultLimits.healing)
            }
            return report
        }
    }
}

extension Findings {
    /// A process ends by itself, and its last lines name a file or its folder; one that does not end in time is killed.
    func requireRefusal(
        of process: KeptProcess,
        naming file: String,
        since begin: ContinuousClock.Instant,
        within limit: Duration
    ) async throws {
        _ = try? await process.ended(within: limit)
        let time = Figure.seconds(begin.duration(to: .now).seconds)
        let code = process.exit?.code ?? 0
        self.require(
            "\(process.specification.name.prefix { $0 != "/" }) ends with an error",
            code != 0,
            found: "\(process.exit.map { "\($0)" } ?? "still runs") after \(time)"
        )
        let line = process.lines.last { $0.contains(file) }
        self.require("its log names the file", line != nil, found: line ?? process.lines.last ?? "no line")
        if process.exit == nil { try process.signal(SIGKILL) }
        _ = try await process.ended(within: .seconds(300))
    }
}

extension FaultCluster {
    /// Plays a row in which a host is away for a while, and measures how long the gateway then takes to have it again.
    ///
    /// Where its pool has no other host, the gateway has short deadlines, and one more client accepts no lost token.
    ///
    /// - Parameters:
    ///   - host: The host, which starts again after the fault.
    ///   - context: Models, timing.
    ///   - variant: Whether the pool has another host.
    ///   - fault: Ends the host's process, and removes what would keep it from starting.
    /// - Returns: A report with the findings and the time of recovery, and what the clients saw.
    /// - Throws: What the fault throws; ``FaultError`` where the cluster is unhealthy from the start.
    func playReturn(
        of host: HostProcess,
        _ context: RowContext,
        _ variant: FaultVariant,
        fault: @Sendable (Story, Findings) async throws -> Void
    ) async throws -> (report: RowReport, outcome: StoryOutcome) {
        let gateway = try await self.startGateway(arguments: variant == .alone ? HostRows.deadlines : [])
        let recovery = Stopwatch()
        let findings = Findings()
        let outcome = try await Story.run(
            context,
            at: gateway.listening(within: .seconds(300)),
            time: context.timing.hostile,
            strictClients: variant == .alone ? 1 : 0,
            gateway: gateway
        ) { story in
            try await fault(story, findings)
            try await self.restart(host)
            recovery.set(try await story.watch.wait(for: host.address, within: .seconds(300)) { $0?.state == .ready })
        }
        var report = RowReport(outcome)
        report.figures.recovery = recovery.seconds
        findings.add(to: &report)
        return (report, outcome)
    }
}

extension Story {
    /// Leaves a pool without its host for a while, and where it has no other one, until a strict call has ended because of it.
    func missHost(_ variant: FaultVariant) async throws {
        try await Task.sleep(for: self.time / 8)
        guard variant == .alone else { return }
        try await Wait.until(within: .seconds(60)) { self.record.summary.strictRefusals > 0 }
    }
}

extension RowReport {
    /// No call fails, except strict ones where they must.
    mutating func requireAnswers(strict: Bool = false) {
        let load = self.figures.load
        self.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
        if strict {
            self.require("strict calls end with a status", load.strictRefusals > 0, found: "\(load.strictRefusals) did")
        } else {
            self.require("no token lost", load.lostTokens == 0, found: "\(load.lost)")
        }
    }
}

extension RowContext {
    /// Starts two pools; the first has a host that serves a copy of its part, which a fault can damage.
    ///
    /// - Parameters:
    ///   - variant: Whether the pool has a second host, which serves the original.
    ///   - packed: Whether the copy's experts are packed, so that the host maps them.
    ///   - body: Gets the cluster, the host and its part.
    /// - Returns: What the body returns.
    /// - Throws: ``FaultError`` where a host does not start; what the body throws.
    func withVictim(
        _ variant: FaultVariant,
        packed: Bool,
        _ body: @Sendable (FaultCluster, HostProcess, WeightDamage) async throws -> RowReport
    ) async throws -> RowReport {
        let plain = try await self.workspace.shards(pools: 2)
        let shards = packed ? try await self.workspace.packedShards(pools: 2) : plain
        let damage = try WeightDamage(
            copying: "\(shards)/pool-0",
            to: "\(self.workspace.folder)/copy-of-pool-0-\(UUID().uuidString)"
        )
        return try await self.withHosts(pools: 0, replicas: 0, named: 2) { cluster in
            if variant == .replica { try await cluster.startHost(pool: 0) }
            let victim = try await cluster.startHost(pool: 0, shard: damage.part)
            try await cluster.startHost(pool: 1)
            return try await body(cluster, victim, damage)
        }
    }
}
