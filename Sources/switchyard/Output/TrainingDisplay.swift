// SPDX-License-Identifier: Apache-2.0

import ExpertTraining
import Foundation
import ServiceKit
import Synchronization
import TrainingRuns

/// What `switchyard train` prints: a live line on a terminal, a line for each report elsewhere.
///
/// A line that standard output does not take at once is lost: hours of training must not wait for a terminal that was stopped,
/// nor end with a full disk. `metrics.jsonl` has all of it.
final class TrainingDisplay: Sendable {
    private let steps: Int?
    private let isLive = StandardStream.output.isTerminal
    /// Whether the cursor stands behind a live line.
    private let hasLine = Mutex(false)
    /// The experts' hosts, and what was last shown of them.
    private let hosts = Mutex<(experts: ShardedExperts?, shown: [String])>((nil, []))

    /// Begins.
    ///
    /// - Parameter steps: Steps of the whole run; nil where time ends it.
    init(steps: Int?) {
        self.steps = steps
    }

    /// Shows with each report what becomes of hosts.
    ///
    /// - Parameter hosts: The experts' hosts.
    func watch(_ hosts: ShardedExperts) {
        self.hosts.withLock { $0.experts = hosts }
    }

    /// A replica that is not up to date, for people; nil for one that is.
    private static func words(_ replica: ShardedExperts.ReplicaStatus) -> String? {
        let place = "\(replica.shard) at \(replica.target)"
        switch replica.phase {
        case "live":
            // The step that a slower replica is in the middle of is none that it lags behind.
            if let lag = replica.lag, lag > 1 { return "\(place) is \(lag) steps behind, and repeats them" }
            return replica.trouble.map { "\(place): \($0)" }
        case "loading": return "\(place) takes over weights and optimizer state"
        case "waiting": return "\(place) waits for another replica's state"
        default: return "\(place) is away\(replica.trouble.map { ": \($0)" } ?? "")"
        }
    }

    /// Shows hosts that are not up to date, where that has changed.
    private func showHosts() {
        let lines = self.hosts.withLock { hosts -> [String] in
            let lines = (hosts.experts?.replicas ?? []).compactMap(Self.words)
            guard lines != hosts.shown else { return [] }
            let wasTrouble = !hosts.shown.isEmpty
            hosts.shown = lines
            return lines.isEmpty && wasTrouble ? ["all hosts are up to date again"] : lines
        }
        for line in lines { self.print("  \(line)") }
    }

    /// Shows an event.
    ///
    /// - Parameter event: The event.
    func show(_ event: RunEvent) {
        switch event {
        case .started(let size, let step):
            let parameters =
                size.trainedParameters == size.parameters
                ? "\(size.parameters) parameters"
                : size.freezesExperts
                    ? "\(size.trainedParameters) of \(size.parameters) parameters, since experts stay as they are"
                    : "\(size.trainedParameters) parameters of an adapter, beside \(size.parameters)"
            let begin = step.map { "Going on after step \($0)" } ?? "Beginning"
            self.print(
                "\(begin): \(parameters), \(size.lines) lines in an epoch"
                    + (size.evaluationExamples > 0 ? ", \(size.evaluationExamples) examples to evaluate with" : "")
            )
        case .report(let report, let secondsLeft) where report.kind == .training:
            self.showLine(RunLine.text(report, of: self.steps, secondsLeft: secondsLeft))
            self.showHosts()
        case .report(let report, _):
            self.print(RunLine.evaluation(report))
            for line in RunLine.balance(report.layers) { self.print("  \(line)") }
        case .saved(let save):
            self.print("saved \(save.path)")
        case .saveFailed(let error):
            self.print("\(error); the run goes on, and tries again after the next step")
        case .metricsLost:
            self.print("a line of \(MetricsLog.name) could not be written; make room")
        case .unusableLines(let count, let why):
            self.print("\(count) lines could not be used:")
            self.print(why)
        }
    }

    /// Shows a line of its own.
    ///
    /// - Parameter text: The line.
    func note(_ text: String) { self.print(text) }

    /// Shows how the run ended, and what to do with it.
    ///
    /// - Parameters:
    ///   - outcome: How it ended.
    ///   - folder: The run's folder.
    func end(_ outcome: RunOutcome, folder: String) {
        guard let save = outcome.save else {
            self.print("stopped before the first step; nothing was saved")
            return
        }
        self.print(outcome.wasStopped ? "stopped after step \(outcome.step)" : "ended after step \(outcome.step)")
        if let best = outcome.bestSave, best != save { self.print("The best evaluation was that of \(best)") }
        if outcome.wasStopped { self.print("Go on:  the same command with --resume") }
        self.print("Next:   switchyard up \(save)")
    }

    private func showLine(_ text: String) {
        guard self.isLive else { return StandardStream.output.writeIfReady(text + "\n") }
        let columns = StandardStream.output.columns ?? 80
        StandardStream.output.writeIfReady("\r\u{1B}[2K" + text.prefix(max(1, columns - 1)))
        self.hasLine.withLock { $0 = true }
    }

    private func print(_ text: String) {
        let hadLine = self.hasLine.withLock { has in
            defer { has = false }
            return has
        }
        StandardStream.output.writeIfReady((hadLine ? "\n" : "") + text + "\n")
    }
}
