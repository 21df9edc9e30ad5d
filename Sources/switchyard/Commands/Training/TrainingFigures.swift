// SPDX-License-Identifier: Apache-2.0

import ExpertTraining
import ServiceKit
import Synchronization
import Telemetry
import TrainingRuns

/// What a training run's admin port shows: the figures of its last reports.
final class TrainingFigures: Sendable {
    /// The run's name in metrics.
    static let component = "train"

    private struct State {
        var isStarted = false
        var training: RunReport?
        var evaluation: RunReport?
        var savedStep: Int?
        var saveFailures = 0
        var secondsLeft: Double?
        var hasEnded = false
        var hosts: ShardedExperts?
    }

    private let state = Mutex(State())
    /// Steps of the whole run; nil where time ends it.
    private let steps: Int?

    /// Figures of a run that has not begun.
    ///
    /// - Parameter steps: Steps of the whole run; nil where time ends it.
    init(steps: Int?) {
        self.steps = steps
    }

    /// The experts' hosts, whose values are shown too.
    ///
    /// - Parameter hosts: The hosts.
    func watch(_ hosts: ShardedExperts) {
        self.state.withLock { $0.hosts = hosts }
    }

    /// Takes an event of the run.
    ///
    /// - Parameter event: The event.
    func note(_ event: RunEvent) {
        self.state.withLock { state in
            switch event {
            case .started(_, let step):
                state.isStarted = true
                state.savedStep = step
            case .report(let report, let secondsLeft) where report.kind == .training:
                state.training = report
                state.secondsLeft = secondsLeft
            case .report(let report, _): state.evaluation = report
            case .saved(let save): state.savedStep = save.step
            case .saveFailed: state.saveFailures += 1
            case .metricsLost, .unusableLines: break
            }
        }
    }

    /// What the run says of itself.
    ///
    /// - Parameters:
    ///   - outcome: How it goes.
    ///   - reason: Why it failed.
    ///   - now: The time in seconds since 1970.
    /// - Returns: The status; nil before the run has begun, and once it has told how it ended.
    func status(_ outcome: TrainingStatus.State, reason: String?, now: Double) -> TrainingStatus? {
        let state = self.state.withLock { state -> State? in
            guard state.isStarted, !state.hasEnded else { return nil }
            state.hasEnded = outcome != .running
            return state
        }
        guard let state else { return nil }
        let shards = state.hosts?.shards ?? []
        let step = shards.first?.step ?? state.training?.step ?? state.savedStep ?? 0
        var status = TrainingStatus(
            state: outcome,
            reason: reason,
            written: now,
            step: step,
            saveFailures: state.saveFailures,
            shards: shards
        )
        status.steps = self.steps
        status.loss = state.training?.loss
        status.evaluationLoss = state.evaluation?.loss
        status.tokensPerSecond = state.training?.tokensPerSecond
        status.secondsLeft = state.secondsLeft
        status.savedStep = state.savedStep
        (status.logMemoryLimit, status.logFileLimit) =
            state.hosts.map { ($0.logLimit.memory, $0.logLimit.files) } ?? (nil, nil)
        return status
    }

    /// Ready once model and data are open.
    var readiness: Readiness {
        let isStarted = self.state.withLock(\.isStarted)
        return Readiness(isReady: isStarted, notes: isStarted ? [] : ["opening model and data"])
    }

    /// Adds the current values.
    ///
    /// - Parameters:
    ///   - snapshot: What to add them to.
    ///   - expertSeriesLimit: The most series by expert; with more experts there are none.
    func collect(into snapshot: inout MetricSnapshot, expertSeriesLimit: Int) {
        let state = self.state.withLock { $0 }
        let table = MetricCatalog.training
        snapshot.setProcess()
        snapshot.setService(Self.component, isReady: state.isStarted)
        state.hosts?.collect(into: &snapshot)
        snapshot.set(table.saveFailuresTotal, state.saveFailures)
        if let step = state.savedStep { snapshot.set(table.savedStep, step) }
        for report in [state.training, state.evaluation].compactMap({ $0 }) {
            snapshot.set(table.loss, [report.kind.rawValue], report.loss)
            snapshot.set(table.crossEntropy, [report.kind.rawValue], report.crossEntropy)
        }
        guard let report = state.training else { return }
        snapshot.set(table.stepsTotal, report.step)
        for (metric, value) in [
            (table.balance, report.balance), (table.droppedFraction, report.dropped),
            (table.gradientNorm, report.gradientNorm), (table.learningRate, report.learningRate),
            (table.tokensPerSecond, report.tokensPerSecond),
        ] {
            if let value { snapshot.set(metric, value) }
        }
        guard report.layers.reduce(0, { $0 + $1.shares.count }) <= expertSeriesLimit else { return }
        for layer in report.layers {
            let parts = layer.layer.split(separator: " ").map(String.init)
            for (expert, share) in layer.shares.enumerated() {
                snapshot.set(table.expertShare, [parts.first ?? "", parts.last ?? "", "\(expert)"], share)
            }
        }
    }
}
