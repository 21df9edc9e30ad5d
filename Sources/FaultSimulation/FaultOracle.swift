// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// A scenario's run beside the calm run of the same requests.
package struct FaultOracle: Sendable {
    /// The scenario.
    package let scenario: FaultScenario
    /// What happened without faults.
    package let calm: FaultReport
    /// What happened with them.
    package let faulty: FaultReport
    /// Rules that were broken, by the machines or by what the clients got.
    package let violations: [String]

    /// Runs a scenario and judges it.
    ///
    /// - Parameter scenario: The scenario.
    package init(_ scenario: FaultScenario) {
        self.init(scenario, calm: FaultCluster(scenario.calm).run(), faulty: FaultCluster(scenario).run())
    }

    /// Judges two runs of a scenario's requests.
    init(_ scenario: FaultScenario, calm: FaultReport, faulty: FaultReport) {
        self.scenario = scenario
        self.calm = calm
        self.faulty = faulty
        var violations = self.calm.violations.map { "calm: \($0)" } + self.faulty.violations
        if violations.isEmpty {
            for (place, request) in scenario.requests.enumerated() {
                Self.judge(request, self.calm.outcomes[place], scenario, isCalm: true, &violations)
                Self.judge(request, self.faulty.outcomes[place], scenario, isCalm: false, &violations)
                Self.compare(request, self.calm.outcomes[place], self.faulty.outcomes[place], &violations)
            }
        }
        self.violations = violations
    }

    /// Whether anything was wrong.
    package var isBroken: Bool { !self.violations.isEmpty }

    /// What one client got, by the model's own tokens.
    private static func judge(
        _ request: SimulatedRequest,
        _ outcome: FaultReport.Outcome,
        _ scenario: FaultScenario,
        isCalm: Bool,
        _ violations: inout [String]
    ) {
        let name = "\(isCalm ? "calm: " : "")request \(request.id)"
        let expected = scenario.model.tokens(of: request)
        let certain = outcome.isTainted ? 0 : outcome.tokensWithoutDrops
        if outcome.tokens.prefix(certain) != expected.prefix(certain) {
            violations.append("\(name) got \(outcome.tokens) without a drop, not \(expected)")
        }
        if outcome.tokens.count > request.outputTokens {
            violations.append("\(name) got \(outcome.tokens.count) tokens")
        }
        // Where a host takes one call at a time, a calm cluster drops rows too.
        let isTight = scenario.hostCalls < 4 || scenario.hostRows < 100 || scenario.outstandingPerReplica < 4
        // So it does where two calls fill a connection: a layer's rows go to two replicas, and an audit or a retry of one
        // part meets the other part. Then even a lone request drops some.
        let isNarrow = scenario.budgetBytes < 1 << 16
        if isCalm, outcome.drops > 0, !isTight, !isNarrow { violations.append("\(name) lost \(outcome.drops) rows") }
        guard let status = outcome.status.flatMap({ Status.Code(rawValue: $0) }) else { return }
        switch status {
        case .ok:
            if outcome.tokens.count != request.outputTokens {
                violations.append("\(name) ended well with \(outcome.tokens.count) of \(request.outputTokens) tokens")
            }
        case .cancelled:
            if request.cancelAfter == nil {
                violations.append("\(name) was cancelled, but not by its client: \(outcome.message)")
            }
        case .deadlineExceeded:
            if request.timeout == nil { violations.append("\(name) missed a deadline that it did not have") }
        case .resourceExhausted: break
        case .unavailable:
            if isCalm { violations.append("\(name) failed: \(outcome.message)") }
        default: violations.append("\(name) ended with \(status): \(outcome.message)")
        }
        if request.isEpilogue, status != .ok || (outcome.drops > 0 && !isNarrow) || outcome.isTainted {
            violations.append(
                "\(name) came after everything had healed: \(status), \(outcome.drops) drops: \(outcome.message)"
            )
        }
    }

    /// The same tokens, or reported drops.
    private static func compare(
        _ request: SimulatedRequest,
        _ calm: FaultReport.Outcome,
        _ faulty: FaultReport.Outcome,
        _ violations: inout [String]
    ) {
        guard !faulty.isTainted, calm.status == 0, faulty.status == 0, calm.drops == 0, faulty.drops == 0 else {
            return
        }
        if calm.tokens != faulty.tokens {
            violations.append("request \(request.id) got \(faulty.tokens), but \(calm.tokens) in the calm run")
        }
    }
}
