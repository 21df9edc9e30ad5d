// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient
internal import Synchronization

/// A cluster under load and random faults, one after another.
package struct Soak: Sendable {
    /// A soak's result.
    package struct Outcome: Sendable {
        /// What had to hold.
        package var checks: [FaultCheck]
        /// Calls and how they ended.
        package var load: LoadSummary
        /// How often each fault happened.
        package var faults: [SoakFault: Int]
        /// The memory of every process.
        package var memory: MemoryLog
        /// How long it took, in seconds.
        package var seconds: Double

        /// Everything in one line.
        package var summary: String {
            let faults = self.faults.sorted { $0.key.rawValue < $1.key.rawValue }
                .map { "\($0.value) \($0.key.rawValue)" }
                .joined(separator: ", ")
            let gateway = self.memory.all.first { $0.name == "gateway" }
            let held = (gateway?.samples.last?.bytes ?? 0) >> 20
            return "\(Figure.decimal(self.seconds / 60, 1)) min; \(faults); \(self.load.calls) calls, "
                + "\(self.load.tokens) tokens, \(self.load.failed) failed, \(self.load.otherIDs) other ids, "
                + "\(self.load.lostTokens) tokens lost; longest wait \(Figure.seconds(self.load.longestGap)); gateway "
                + "\(held) MiB, grown \(Figure.percent(gateway?.growth ?? 0))"
        }
    }

    private static let pools = 2
    private static let replicas = 2
    /// How much a process may grow after it has warmed up, as a fraction.
    private static let growth = 0.05

    /// Where programs and models are, and the load.
    let context: RowContext
    /// How long.
    let time: Duration
    /// The source of the random faults.
    let seed: UInt64
    /// Receives progress messages.
    let tell: @Sendable (String) -> Void

    /// Creates a soak.
    ///
    /// - Parameters:
    ///   - context: Where programs and models are, and the load.
    ///   - time: How long to inject faults.
    ///   - seed: The same seed draws the same faults.
    ///   - tell: Receives progress messages.
    package init(
        context: RowContext,
        time: Duration,
        seed: UInt64,
        tell: @escaping @Sendable (String) -> Void
    ) {
        self.context = context
        self.time = time
        self.seed = seed
        self.tell = tell
    }

    /// Runs the soak.
    ///
    /// - Returns: The result.
    /// - Throws: ``FaultError`` where a process does not start or back.
    package func run() async throws -> Outcome {
        let shards = try await self.context.workspace.shards(pools: Self.pools)
        return try await ProcessKeeper.with { keeper in
            let cluster = try FaultCluster(
                workspace: self.context.workspace,
                shards: shards,
                pools: Self.pools,
                lab: nil,
                keeper: keeper
            )
            for pool in 0..<Self.pools {
                for _ in 0..<Self.replicas { try await cluster.startHost(pool: pool) }
            }
            return try await self.run(cluster, mayScale: try await self.startGateway(cluster))
        }
    }

    /// Starts the gateway; says whether it reads its hosts from files.
    private func startGateway(_ cluster: FaultCluster) async throws -> Bool {
        for pool in cluster.pools { try cluster.writeTargets(of: pool) }
        do {
            let files = cluster.pools.map { ($0, ["file://\(cluster.targetsFile(of: $0))"]) }
            try await cluster.startGateway(targets: Dictionary(files) { first, _ in first })
            return true
        } catch {
            self.tell("no scaling, since the gateway does not take watched files: \(error)")
            try await cluster.startGateway()
            return false
        }
    }

    private func run(_ cluster: FaultCluster, mayScale: Bool) async throws -> Outcome {
        let address = try await cluster.gateway.listening(within: .seconds(300))
        let requests = self.context.requests
        let memory = MemoryLog()
        return try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
            let references = try await Load.references(requests, client: client)
            let record = LoadRecord(keepsEverything: false)
            let plan = Load.Plan(requests: requests, references: references, clients: self.context.timing.clients)
            let load = Load(plan, record: record)
            let watch = ClusterWatch()
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await load.run(client) }
                group.addTask { await watch.run(client) }
                let sampling = Sampling(cluster: cluster, memory: memory)
                group.addTask { await sampling.run() }
                let faults: [SoakFault: Int]
                do {
                    faults = try await self.disturb(cluster, watch, record, mayScale: mayScale)
                } catch {
                    group.cancelAll()
                    throw error
                }
                load.stop()
                watch.stop()
                sampling.stop()
                try await group.waitForAll()
                return self.outcome(record, faults, memory)
            }
        }
    }

    private func disturb(
        _ cluster: FaultCluster,
        _ watch: ClusterWatch,
        _ record: LoadRecord,
        mayScale: Bool
    ) async throws -> [SoakFault: Int] {
        var generator = SeededGenerator(seed: self.seed)
        var faults: [SoakFault: Int] = [:]
        var told = record.now
        while record.now < self.time {
            let step = SoakStep.drawn(&generator, pools: Self.pools, replicas: Self.replicas, mayScale: mayScale)
            try await self.play(step, cluster, watch)
            faults[step.fault, default: 0] += 1
            try await Task.sleep(for: step.pause)
            if record.now - told > .seconds(30) {
                told = record.now
                let load = record.summary
                self.tell(
                    "\(Int(told.seconds)) s: \(faults.values.reduce(0, +)) faults, \(load.calls) calls, "
                        + "\(load.failed) failed, \(load.otherIDs) other ids, \(load.lostTokens) tokens lost"
                )
            }
        }
        return faults
    }

    private func play(_ step: SoakStep, _ cluster: FaultCluster, _ watch: ClusterWatch) async throws {
        if step.fault == .scale { return try await self.scale(step, cluster, watch) }
        guard let host = cluster.hosts.first(where: { $0.name == "pool-\(step.pool)/\(step.replica)" }) else {
            throw FaultError("there is no host pool-\(step.pool)/\(step.replica)")
        }
        switch step.fault {
        case .kill:
            try host.process.signal(SIGKILL)
            try await Task.sleep(for: step.time)
            try await cluster.restart(host)
        case .stop:
            try host.process.signal(SIGSTOP)
            try await Task.sleep(for: step.time)
            try host.process.signal(SIGCONT)
        case .drain:
            try host.process.signal(SIGTERM)
            _ = try await host.process.ended(within: .seconds(30))
            try await cluster.restart(host)
        case .scale: break
        }
        // One fault at a time: each pool has a healthy host at every moment.
        try await watch.wait(for: host.address, within: .seconds(60)) { $0?.state == .ready }
    }

    private func scale(_ step: SoakStep, _ cluster: FaultCluster, _ watch: ClusterWatch) async throws {
        let pool = "pool-\(step.pool)"
        let host = try await cluster.startHost(pool: step.pool)
        try cluster.writeTargets(of: pool)
        try await watch.wait(for: host.address, within: .seconds(30)) { $0?.state == .ready }
        try await Task.sleep(for: step.time)
        cluster.forget(host)
        try cluster.writeTargets(of: pool)
        try await watch.wait(for: host.address, within: .seconds(30)) { $0 == nil }
        try host.process.signal(SIGTERM)
        _ = try await host.process.ended(within: .seconds(30))
    }

    // MARK: - What came of it

    private func outcome(_ record: LoadRecord, _ faults: [SoakFault: Int], _ memory: MemoryLog) -> Outcome {
        var report = RowReport()
        report.figures.load = record.summary
        report.requireUnnoticed()
        // Processes that were replaced on the way did not live long enough to judge.
        let long = memory.all.filter { series in
            let life = (series.samples.last?.time ?? 0) - (series.samples.first?.time ?? 0)
            return life >= 0.8 * self.time.seconds
        }
        report.require("processes that lived all the time", long.count > Self.pools, found: "\(long.count)")
        for series in long {
            report.require(
                "\(series.name): memory flat within 5 %",
                series.growth <= Self.growth,
                found: "\(Figure.percent(series.growth)), \((series.samples.last?.bytes ?? 0) >> 20) MiB",
                speed: true
            )
        }
        return Outcome(
            checks: report.checks,
            load: record.summary,
            faults: faults,
            memory: memory,
            seconds: record.now.seconds
        )
    }
}

/// Notes the memory of every process of a cluster every other second.
private final class Sampling: Sendable {
    private let cluster: FaultCluster
    private let memory: MemoryLog
    private let maySample = Mutex(true)

    init(cluster: FaultCluster, memory: MemoryLog) {
        self.cluster = cluster
        self.memory = memory
    }

    func stop() { self.maySample.withLock { $0 = false } }

    func run() async {
        let begin = ContinuousClock.now
        while self.maySample.withLock({ $0 }), !Task.isCancelled {
            let time = begin.duration(to: .now).seconds
            for process in self.cluster.processes {
                guard let identifier = process.identifier, let bytes = process.residentBytes else { continue }
                self.memory.add(
                    name: process.specification.name,
                    identifier: identifier,
                    MemoryLog.Sample(time: time, bytes: bytes)
                )
            }
            try? await Task.sleep(for: .seconds(2))
        }
    }
}
