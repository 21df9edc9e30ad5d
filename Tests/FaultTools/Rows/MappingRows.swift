// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which a file is written to while a process has it mapped.
enum MappingRows {
    private static let kinds: [(name: String, title: String, harm: @Sendable (WeightDamage) throws -> Void)] = [
        ("overwritten", "`cp` of other weights over the mapped file", { try $0.overwrite() }),
        ("rewritten", "Other weights written into the mapped file", { try $0.overwrite(cutting: false) }),
        ("zeroed-pages", "Five pages of the mapped file zeroed", { try $0.zero(pages: 5, at: 0.4) }),
        ("truncated", "Mapped file cut in half", { try $0.truncate() }),
    ]

    static var rows: [FaultRow] {
        self.kinds.flatMap { name, title, harm in
            FaultVariant.allCases.map { variant in
                FaultRow(name: name, title: "\(title) under a host", variant: variant, isHostile: true) {
                    try await Self.underHost($0, variant, harm)
                }
            } + [
                FaultRow(
                    name: "gateway-\(name)",
                    title: "\(title) under the gateway",
                    variant: .replica,
                    isHostile: true
                ) { try await Self.underGateway($0, harm) }
            ]
        }
    }

    private static func underHost(
        _ context: RowContext,
        _ variant: FaultVariant,
        _ harm: @escaping @Sendable (WeightDamage) throws -> Void
    ) async throws -> RowReport {
        try await context.withVictim(variant, packed: true) { cluster, victim, damage in
            var (report, outcome) = try await cluster.playReturn(of: victim, context, variant) { story, findings in
                let begin = ContinuousClock.now
                try harm(damage)
                try await findings.requireRefusal(
                    of: victim.process,
                    naming: damage.part,
                    since: begin,
                    within: .seconds(60)
                )
                try await story.missHost(variant)
                try damage.repair()
            }
            report.requireAnswers(strict: variant == .alone)
            report.requireShortExposure()
            report.requireWhole(outcome, after: FaultLimits.healing)
            return report
        }
    }

    private static func underGateway(
        _ context: RowContext,
        _ harm: @escaping @Sendable (WeightDamage) throws -> Void
    ) async throws -> RowReport {
        let shards = try await context.workspace.shards(pools: 2)
        let damage = try WeightDamage(
            copying: "\(shards)/gateway",
            to: "\(context.workspace.folder)/copy-of-gateway-\(UUID().uuidString)"
        )
        return try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway(model: damage.part)
            let address = try await gateway.listening(within: .seconds(300))
            let recovery = Stopwatch()
            let findings = Findings()
            let outcome = try await Story.run(context, at: address, time: context.timing.hostile, gateway: gateway) {
                _ in
                let begin = ContinuousClock.now
                try harm(damage)
                try await findings.requireRefusal(of: gateway, naming: damage.part, since: begin, within: .seconds(60))
                try damage.repair()
                let restart = ContinuousClock.now
                try await cluster.startGateway(model: damage.part, listen: address)
                try await GatewayRows.waitForAnswer(context.requests[0], at: Endpoint(parsing: address), since: restart)
                recovery.set(restart.duration(to: .now))
            }
            var report = RowReport(outcome)
            report.figures.recovery = recovery.seconds
            let others = outcome.calls.filter { call in
                if case .failed(let code, _) = call.outcome { return code != .unavailable }
                return false
            }
            report.require(
                "failed calls end with UNAVAILABLE",
                others.isEmpty,
                found: "\(report.figures.load.failed) failed, \(others.count) otherwise"
            )
            report.requireShortExposure()
            report.requireWhole(outcome, after: 1)
            findings.add(to: &report)
            return report
        }
    }
}

extension RowReport {
    /// Wrong answers, where there were any, ended soon after the fault began.
    mutating func requireShortExposure() {
        let wrong = self.figures.load.wrongIDs
        self.require(
            "wrong answers for \(Figure.seconds(FaultLimits.exposure)) at most",
            self.figures.wrongFor ?? 0 <= FaultLimits.exposure,
            found: "\(wrong) wrong, the last \(Figure.seconds(self.figures.wrongFor ?? 0)) after it",
            speed: true
        )
    }
}
