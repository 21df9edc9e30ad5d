// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient

/// Rows in which a host answers with numbers that are not the experts'.
enum RubbishRows {
    static var rows: [FaultRow] {
        FaultVariant.allCases.flatMap { variant in
            [
                FaultRow(name: "rubbish", title: "Host returns 3e38", variant: variant, isHostile: true) {
                    try await ReplyRows.lied($0.hostile, [.huge], variant)
                },
                FaultRow(
                    name: "plausible",
                    title: "Host returns other rows, then zeros",
                    variant: variant,
                    isHostile: true
                ) { try await Self.plausible($0, variant) },
            ]
        }
    }

    /// Numbers that a healthy expert could have computed pass; what counts is how many, and that they end with the lies.
    private static func plausible(_ context: RowContext, _ variant: FaultVariant) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let honest = try cluster.firstHost.address
            return try await LyingHost.with(before: try await ReplyRows.behindLiar(cluster, variant)) { liar in
                let targets = ["pool-0": variant == .replica ? [honest, liar.address] : [liar.address]]
                let gateway = try await cluster.startGateway(targets: targets)
                let findings = Findings()
                let outcome = try await Story.run(
                    context,
                    at: gateway.listening(within: .seconds(300)),
                    time: context.timing.hostile,
                    strictClients: 1,
                    gateway: gateway
                ) { story in
                    for lie in [Lie.otherRows, .zeroRows] {
                        let before = (liar.told, story.record.summary)
                        liar.tell(lie)
                        try await Task.sleep(for: context.timing.hostile / 2)
                        // On a slow machine, until a lie was told.
                        try await Wait.until(within: .seconds(60)) { liar.told > before.0 }
                        let now = story.record.summary
                        findings.note(
                            "\(lie): \(liar.told - before.0) replies, \(now.wrongIDs - before.1.wrongIDs) wrong of "
                                + "\(now.calls - before.1.calls) answers"
                        )
                    }
                    liar.tell(nil)
                }
                var report = RowReport(outcome)
                let load = report.figures.load
                report.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
                report.require("lies were told", liar.told > 0, found: "\(liar.told)")
                let later = outcome.calls.count { $0.isWrong && $0.start > outcome.fault.to }
                report.require("no wrong answer to a call after the lies", later == 0, found: "\(later)")
                findings.add(to: &report)
                return report
            }
        }
    }
}

extension LoadCall {
    /// Whether the answer has other ids and does not say that tokens were lost.
    var isWrong: Bool { self.outcome == .answered(isSame: false) && self.lost.isEmpty }
}

extension StoryOutcome {
    /// How long after the fault's beginning the last wrong answer ended, in seconds; nil where none was wrong.
    var wrongFor: Double? {
        self.calls.filter { $0.isWrong && $0.end > self.fault.from }.map { ($0.end - self.fault.from).seconds }.max()
    }
}

/// Waits for something that comes sooner or later.
enum Wait {
    /// Polls until a condition holds or the time is up.
    ///
    /// - Returns: Whether it holds.
    @discardableResult
    static func until(within limit: Duration, _ condition: () async -> Bool) async throws -> Bool {
        let end = ContinuousClock.now.advanced(by: limit)
        while ContinuousClock.now < end {
            if await condition() { return true }
            try await Task.sleep(for: .milliseconds(5))
        }
        return false
    }
}
