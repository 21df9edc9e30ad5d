// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Metrics
internal import ServiceKit
internal import SwitchyardTypes
internal import Synchronization
internal import Telemetry

/// What a training host counts, for any metrics backend.
struct TrainingHostMetrics: Sendable {
    private let forward: Counter
    private let backward: Counter
    private let replay: Counter
    private let queueTime: Timer
    private let computeTime: Timer
    private let written: Counter
    private let failed: Counter
    private let places = Places()

    private final class Places: Sendable {
        let step = Mutex(0)
        let snapshotTime = Mutex(0.0)
    }

    /// Creates every metric, so that all of them exist from the start, at zero.
    ///
    /// - Parameter factory: The backend.
    init(factory: any MetricsFactory) {
        let table = MetricCatalog.trainingHost
        self.forward = table.rowsTotal.counter(["forward"], factory: factory)
        self.backward = table.rowsTotal.counter(["backward"], factory: factory)
        self.replay = table.rowsTotal.counter(["replay"], factory: factory)
        self.queueTime = table.queueSeconds.timer(factory: factory)
        self.computeTime = table.computeSeconds.timer(factory: factory)
        self.written = table.snapshotsTotal.counter(["ok"], factory: factory)
        self.failed = table.snapshotsTotal.counter(["failed"], factory: factory)
    }

    /// Counts a call with rows.
    func computed(isBackward: Bool, isReplay: Bool, rows: Int, waited: Duration, time: Duration) {
        (isReplay ? self.replay : isBackward ? self.backward : self.forward).increment(by: rows)
        self.queueTime.recordNanoseconds(waited.wholeNanoseconds)
        self.computeTime.recordNanoseconds(time.wholeNanoseconds)
    }

    /// Notes that a step was applied.
    func applied(step: Int) { self.places.step.withLock { $0 = step } }

    /// Counts a snapshot.
    func wroteSnapshot(failed isFailed: Bool) {
        (isFailed ? self.failed : self.written).increment()
        if !isFailed { self.places.snapshotTime.withLock { $0 = Date().timeIntervalSince1970 } }
    }

    /// Adds what is cheaper to look up than to count.
    func collect(into snapshot: inout MetricSnapshot, _ jobs: HostJobs) {
        let table = MetricCatalog.trainingHost
        snapshot.set(table.waitingCalls, jobs.count)
        snapshot.set(table.isLoaded, jobs.summary?.step == nil ? 0 : 1)
        snapshot.set(table.step, jobs.summary?.step ?? self.places.step.withLock { $0 })
        let time = self.places.snapshotTime.withLock { $0 }
        if time > 0 { snapshot.set(table.snapshotTime, time) }
    }
}
