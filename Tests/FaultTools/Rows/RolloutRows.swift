// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient
internal import Synchronization

/// Rows in which the cluster changes to another checkpoint while it is under load.
enum RolloutRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "rollout",
                title: "Checkpoints change back and forth under load",
                variant: .alone,
                play: Self.changes
            )
        ]
    }

    /// How many changes there are; a few where only behaviour is checked.
    private static func count(_ timing: FaultTiming) -> Int { timing.measured < .seconds(5) ? 2 : 20 }

    private static func changes(_ context: RowContext) async throws -> RowReport {
        let checkpoints = try await context.workspace.checkpoints(pools: 2)
        let flags = ["--checkpoints", checkpoints]
        return try await context.withHosts(pools: 2, replicas: 1, hostArguments: flags) { cluster in
            let gateway = try await cluster.startGateway(arguments: flags)
            let address = try await gateway.listening(within: .seconds(300))
            @Sendable func rollout(_ arguments: String...) async throws {
                try await Tool.run(context.workspace.executable, ["rollout"] + arguments + ["--gateway", address])
            }
            // What each of the two answers while it is the only one.
            let known = try await GatewayClient.with(endpoint: try Endpoint(parsing: address)) { client in
                var known: [UInt64: [[UInt32]]] = [:]
                for name in ["tuned", "plain"] {
                    try await rollout(name, "--promote")
                    let (fingerprint, answers) = try await Self.answers(context.requests, client)
                    known[fingerprint] = answers
                }
                return known
            }
            let count = Self.count(context.timing)
            let duration = Stopwatch()
            let parts = ChangeParts()
            let outcome = try await Story.run(context, at: address, time: context.timing.measured, known: known) {
                story in
                let begin = ContinuousClock.now
                for change in 0..<count {
                    let name = change % 2 == 0 ? "tuned" : "plain"
                    try await parts.during("while it is loaded", story.record) {
                        try await rollout(name, "--canary", "50%")
                    }
                    // Both answer for a while.
                    try await parts.during("while both answer", story.record) {
                        try await Task.sleep(for: .milliseconds(500))
                    }
                    try await parts.during("while the old one leaves", story.record) {
                        try await rollout(name, "--promote")
                    }
                }
                duration.set(begin.duration(to: .now))
            }
            var report = RowReport(outcome)
            let load = report.figures.load
            let different = Set(known.values.map { "\($0)" }).count
            report.require(
                "two checkpoints with other answers",
                known.count == 2 && different == 2,
                found: "\(different)"
            )
            report.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
            report.require("no answer is mixed", load.otherIDs == 0, found: "\(load.otherIDs) of \(load.calls)")
            report.require("no token is lost", load.lostTokens == 0, found: "\(load.lostTokens)")
            let ratio = report.figures.quietStep > 0 ? report.figures.faultStep / report.figures.quietStep : 0
            report.require("p99 step <= 1.2 x", ratio <= 1.2, found: String(format: "%.2f x", ratio), speed: true)
            report.notes.append("\(count) changes in \(Figure.seconds(duration.seconds ?? 0))")
            report.notes.append("p99 step \(parts.words(outcome.samples))")
            return report
        }
    }

    /// The ids of every request's answer, and the checkpoint that gave them.
    private static func answers(
        _ requests: [LoadRequest],
        _ client: GatewayClient
    ) async throws -> (fingerprint: UInt64, answers: [[UInt32]]) {
        var answers: [[UInt32]] = []
        var fingerprints: Set<UInt64> = []
        for request in requests {
            let response = try await client.generate(request.message(strict: true), timeout: .seconds(120))
            answers.append(response.generations.first?.tokenIDs ?? [])
            fingerprints.insert(response.usage?.modelFingerprint ?? 0)
        }
        guard fingerprints.count == 1, let fingerprint = fingerprints.first else {
            throw FaultError("\(fingerprints.count) checkpoints answer after a promotion; one must")
        }
        return (fingerprint, answers)
    }
}

/// When each part of a change lasted, over all changes.
private final class ChangeParts: Sendable {
    private struct Part {
        var name: String
        var times: [(from: Duration, to: Duration)]
    }

    private let parts = Mutex<[Part]>([])

    func during(_ name: String, _ record: LoadRecord, _ body: () async throws -> Void) async rethrows {
        let from = record.now
        try await body()
        let time = (from: from, to: record.now)
        self.parts.withLock { parts in
            if let index = parts.firstIndex(where: { $0.name == name }) {
                parts[index].times.append(time)
            } else {
                parts.append(Part(name: name, times: [time]))
            }
        }
    }

    /// The 99th percentile of the time between two tokens in each part: `8 ms while it is loaded, ...`.
    func words(_ samples: [TokenSample]) -> String {
        self.parts.withLock { parts in
            parts.map { part in
                let gaps = part.times
                    .flatMap { time in
                        samples.filter {
                            !$0.isFirst && $0.time >= Float(time.from.seconds) && $0.time < Float(time.to.seconds)
                        }
                        .map(\.gap)
                    }
                    .sorted()
                let high = gaps.isEmpty ? 0 : gaps[min(gaps.count - 1, gaps.count * 99 / 100)]
                return "\(Figure.seconds(Double(high))) \(part.name)"
            }
            .joined(separator: ", ")
        }
    }
}
