// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import ExpertPooling
internal import Foundation
public import Logging
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardTypes
internal import Synchronization

/// The gateway's connections to its expert hosts: the runner of the ``ExpertPools`` machine.
///
/// Every replica has a channel. A replica is asked to describe itself when its connection comes up, and gets calls
/// only once its fingerprint and its experts are verified.
public final class ExpertCluster: Sendable {
    /// Work for ``run()`` that the machine or a target watch asks for.
    enum Work: Sendable {
        case describe(ReplicaID)
        case wake(at: ContinuousClock.Instant)
        case add(ReplicaID)
        case remove(ReplicaID)
        case prove(ReplicaID, Proof)
    }

    struct State: Sendable {
        var pools: ExpertPools
        /// Where rows go.
        var expertLoad = ExpertLoad()
        /// The memory of the last layer's groups, for the next one's.
        var groups: [(expert: Int, rows: Int)] = []
        var channels: [ReplicaID: RPCChannel] = [:]
        /// Wakes the finders of a pool's replicas, by pool.
        var finders: [String: [AsyncStream<Void>.Continuation]] = [:]
        /// When the earliest sleeping ``Work/wake(at:)`` ends.
        var wakeAt: ContinuousClock.Instant?
        /// Each replica's last description of itself.
        var loads: [ReplicaID: ReplicaLoad] = [:]
        var isComplete = false
        /// Whether connections are closed because they are no longer needed, which is no news.
        var isEnding = false
        var news = ServingNews()
        /// The calls that caught replicas got wrong, with the right answers.
        var evidence: [ReplicaID: Proof] = [:]
        /// The machine's ``ExpertPools/readyVersion`` when `isComplete` was computed.
        var judgedVersion = -1
        /// Why hosts cannot hold the checkpoint that they were asked to hold.
        var refusals: [ReplicaID: String] = [:]
    }

    let configuration: ExpertClusterConfiguration
    /// The fingerprint of the checkpoint that is served.
    let fingerprint: UInt64
    /// The checkpoint's name where hosts are asked to hold it beside another one; nil where they serve it already.
    let holding: String?
    let layers: [SparseLayer]
    let expertCount: Int
    let logger: Logger
    let state: Mutex<State>
    /// The states of layers that are over, for those to come.
    let layerStates = LayerStates()
    /// How the engine's thread waits for a layer: since it gives way, for longer than a thread does that waits for work.
    let spin: IdleSpin
    /// The event loop of the hosts' sockets, which waiting threads or its keeper drive; nil if the sockets have event loops with
    /// threads.
    let sockets: DrivenEventLoop?
    /// Why there is no such loop although there should be.
    private let socketsFailure: (any Error)?
    /// Wakes a thread that drives the sockets while it waits for what another thread has changed.
    let wakeDriver: (@Sendable () -> Void)?
    /// The experts in the gateway's model folder, for audits; nil if it holds none, or nothing is audited.
    let ownExperts: GatewayExperts?

    private let work: AsyncStream<Work>
    let workSource: AsyncStream<Work>.Continuation
    private let completion: AsyncStream<Never>
    let completionSource: AsyncStream<Never>.Continuation

    /// Creates the connections' owner; ``run()`` connects.
    ///
    /// - Parameters:
    ///   - configuration: The pools and how to reach them.
    ///   - model: The model whose experts they hold.
    ///   - fingerprint: The fingerprint of the checkpoint that is served.
    ///   - placement: Which pool holds each expert; learned from the hosts if it is missing.
    ///   - checkpoint: The gateway's checkpoint, whose experts give an opinion in audits; nil leaves them to the hosts.
    ///   - holding: The checkpoint's name among the hosts' checkpoints, which they load where they do not hold it; nil asks
    ///     for what they serve.
    ///   - logger: Logs which hosts are ready, ejected, draining or mismatched.
    public init(
        configuration: ExpertClusterConfiguration,
        model: ModelConfiguration,
        fingerprint: UInt64,
        placement: PlacementTable?,
        checkpoint: Checkpoint? = nil,
        holding: String? = nil,
        logger: Logger
    ) {
        self.configuration = configuration
        self.fingerprint = fingerprint
        self.holding = holding
        self.spin = IdleSpin(
            limit: configuration.spin * Self.patience,
            processors: ProcessInfo.processInfo.activeProcessorCount
        )
        let (sockets, socketsFailure) = Self.sockets(of: configuration)
        self.sockets = sockets
        self.socketsFailure = socketsFailure
        self.wakeDriver = sockets.map { loop -> (@Sendable () -> Void) in { loop.ring() } }
        self.layers = model.sparseLayers
        self.expertCount = model.expertCount
        self.logger = logger
        let audited = configuration.choice.auditFraction
        self.ownExperts = checkpoint.flatMap { checkpoint in
            guard audited > 0 else { return nil }
            return GatewayExperts(
                checkpoint: checkpoint,
                memoryLimit: configuration.auditMemoryBytes,
                fraction: audited,
                logger: logger
            )
        }
        let pools = ExpertPools(
            configuration: configuration.choice,
            fingerprint: fingerprint,
            modelWidth: model.modelWidth,
            placement: placement,
            seed: .random(in: 0...UInt64.max)
        )
        self.state = Mutex(State(pools: pools))
        (self.work, self.workSource) = AsyncStream.makeStream(of: Work.self)
        (self.completion, self.completionSource) = AsyncStream.makeStream(of: Never.self)
        if !model.hasExperts {
            // There is no host to wait for.
            self.state.withLock { $0.isComplete = true }
            self.completionSource.finish()
        }
    }

    /// How many times `spin` the engine looks for answers.
    private static let patience = 10

    private static func sockets(of configuration: ExpertClusterConfiguration) -> (DrivenEventLoop?, (any Error)?) {
        guard configuration.channel.eventLoopGroup == nil else { return (nil, nil) }
        switch configuration.sockets {
        case .eventLoops: return (nil, nil)
        case .auto where !IdleSpin.knowsCrowds: return (nil, nil)
        case .auto, .engine: break
        }
        do { return (try DrivenEventLoop(), nil) } catch { return (nil, error) }
    }

    /// The event loop of the hosts' sockets, if a thread that begins a layer now drives it; nil leaves it to other threads.
    ///
    /// A thread that drives pays for the sockets with its own share of the processors. Where it has to wait for one, a thread that
    /// has slept gets one sooner.
    var socketsToDrive: DrivenEventLoop? {
        self.configuration.sockets == .auto && self.spin.isCrowded ? nil : self.sockets
    }

    /// Connects to all replicas and verifies them, until the task is cancelled.
    ///
    /// - Throws: `ComputeThread.StartError` if there is no thread to look up names on, or to keep the sockets while no other
    ///   does; `IOError` where the process has no file descriptor left.
    public func run() async throws {
        if let socketsFailure { throw socketsFailure }
        guard let sockets else { return try await self.connect() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                // Without a keeper, connections still end: the thread that ends them does the loop's work.
                defer { sockets.stop() }
                try await ComputeThread.run(name: "expert-sockets") { sockets.keep() }
            }
            group.addTask {
                defer { sockets.stop() }
                try await self.connect()
            }
            for try await _ in group {}
        }
    }

    private func connect() async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for pool in self.configuration.pools {
                for target in pool.targets {
                    switch target {
                    case .address(let host, let port):
                        self.workSource.yield(.add(ReplicaID(pool: pool.name, host: host, port: port)))
                    case .name(let host, let port):
                        let finder = NameFinder(host: host, port: port)
                        let watch = TargetWatch(pool: pool.name, finder: finder, cluster: self)
                        group.addTask { try await watch.run() }
                    case .file(let path):
                        let mayLeave = self.configuration.mayLeaveThisMachine
                        let finder = FileFinder(path: path, mayLeaveThisMachine: mayLeave)
                        let watch = TargetWatch(pool: pool.name, finder: finder, cluster: self)
                        group.addTask { try await watch.run() }
                    }
                }
            }
            if let own = self.ownExperts {
                group.addTask { try await ComputeThread.run(name: "audit") { own.run() } }
            }
            if self.configuration.replicatesHotExperts, !self.layers.isEmpty {
                group.addTask { await self.replicateHotExperts() }
            }
            for await work in self.work {
                self.perform(work, in: &group)
            }
            self.ownExperts?.stop()
            group.cancelAll()
        }
    }

    /// Says that connections will be closed because they are no longer needed; call it before the task of ``run()`` is
    /// cancelled.
    func beginEnding() { self.state.withLock { $0.isEnding = true } }

    /// Suspends until every expert is held by a ready replica, or the task is cancelled.
    ///
    /// Only one task may wait at a time.
    public func waitUntilComplete() async {
        for await _ in self.completion {}
    }

    private func perform(_ work: Work, in group: inout ThrowingDiscardingTaskGroup<any Error>) {
        switch work {
        case .add(let id):
            guard let channel = self.open(id) else {
                return
            }
            group.addTask { try await channel.run() }
        case .remove(let id):
            self.close(id)
        case .describe(let id):
            group.addTask { await self.describe(id) }
        case .prove(let id, let proof):
            group.addTask { await self.judge(proof, by: id) }
        case .wake(let time):
            group.addTask {
                try? await Task.sleep(until: time, clock: .continuous)
                self.transition { state in
                    state.wakeAt = nil
                    return state.pools.timerFired(now: .now)
                }
            }
        }
    }

    // MARK: - Members

    /// Has ``run()`` do something.
    func ask(_ work: Work) { self.workSource.yield(work) }

    /// Adds a replica.
    func found(_ id: ReplicaID) { self.workSource.yield(.add(id)) }

    /// Removes a replica that has left its pool.
    func lost(_ id: ReplicaID) { self.workSource.yield(.remove(id)) }

    private func open(_ id: ReplicaID) -> RPCChannel? {
        let isKnown = self.state.withLock { $0.channels[id] != nil }
        guard !isKnown else {
            return nil
        }
        let load = ReplicaLoad()
        var configuration = self.configuration.channel
        configuration.traffic = load.traffic
        if let sockets { configuration.eventLoopGroup = sockets }
        let channel = RPCChannel(
            target: (host: id.host, port: id.port),
            configuration: configuration,
            logger: self.logger,
            onStateChange: { [weak self] state in
                self?.connectionChanged(id, to: state)
            }
        )
        self.state.withLock { state in
            state.channels[id] = channel
            state.loads[id] = load
            state.pools.added(id)
        }
        return channel
    }

    private func close(_ id: ReplicaID) {
        let channel = self.state.withLock { state in
            state.pools.removed(id, now: .now)
            state.loads[id] = nil
            state.news.forget(id)
            state.refusals[id] = nil
            // The process may come back at another address: its pool keeps one call to ask it about.
            if state.evidence.keys.contains(where: { $0 != id && $0.pool == id.pool }) { state.evidence[id] = nil }
            return state.channels.removeValue(forKey: id)
        }
        channel?.shutdown()
    }

    private func connectionChanged(_ id: ReplicaID, to connection: RPCChannel.State) {
        switch connection {
        case .ready:
            self.logger.debug("connected to an expert host", metadata: ["replica": "\(id)"])
            self.transition { $0.pools.connected(id) }
        case .idle, .connecting, .transientFailure, .shutdown:
            self.transition { state in
                state.pools.disconnected(id, now: .now)
                state.news.note(id, isUp: false, now: .now)
                return []
            }
            // A host that is gone may have come up at another address.
            for finder in self.state.withLock({ $0.finders[id.pool] ?? [] }) {
                finder.yield()
            }
        }
    }
}
