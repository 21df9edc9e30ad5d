// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import Foundation
public import Logging
internal import NIOCore
internal import RPCCore
public import RPCTransport
internal import ServiceKit
public import SwitchModel
public import SwitchTraining
internal import SwitchyardProtos
public import SwitchyardTypes
internal import Synchronization
public import TensorKernels

/// Experts that are trained on hosts: a shard for each pool, with one or more replicas.
///
/// No row is dropped, and none counts twice: the layer waits until a host that has followed the whole log answers. What hosts
/// compute is a function of the log, so neither which host answered shows in the weights, nor when, nor who died.
public final class ShardedExperts: LearningExperts {
    /// The hosts, and how to wait for them.
    public struct Configuration: Sendable {
        /// A shard and its hosts.
        public struct Pool: Sendable {
            /// The shard's name.
            public var name: String
            /// The replicas.
            public var targets: [(host: String, port: Int)]

            /// Names a shard and its hosts.
            public init(name: String, targets: [(host: String, port: Int)]) {
                self.name = name
                self.targets = targets
            }
        }

        /// The shards, among which experts are divided evenly.
        public var pools: [Pool]
        /// How to connect.
        public var channel: RPCChannelConfiguration
        /// How long one call may take before it is made again.
        public var call = Duration.seconds(30)
        /// How long a step waits while nothing comes back.
        public var patience = Duration.seconds(600)
        /// Steps after which hosts' states are kept again, so that the log can be forgotten.
        public var stepsPerSnapshot = 50
        /// Bytes in memory of the log of all shards: hosts' states are kept earlier where it gets there, and a step waits for that.
        public var logBytes = 1 << 30
        /// The folder for what the log's memory does not hold; nil for none.
        public var logFolder: String?
        /// Bytes of the log of all shards in that folder.
        public var logFileBytes = 16 << 30

        /// Names the shards.
        public init(pools: [Pool], channel: RPCChannelConfiguration) {
            self.pools = pools
            self.channel = channel
        }
    }

    /// The run's number.
    public let run: UInt64

    /// The adapter that is trained in place of experts' weights; nil where those are.
    public let adapter: LowRankSettings?

    /// Rows of a call at most.
    static let mostRows = 2048

    let links: [ShardLink]
    private let settings: Configuration
    private let model: ModelConfiguration
    private let isStopping: @Sendable () -> Bool
    private let templates: Mutex<[ExpertShard]>
    private let pool: WorkPool
    /// The shard of each expert of a layer.
    let shardOf: [Int]

    /// Names the hosts of a run; ``with(_:_:)`` connects to them.
    ///
    /// - Parameters:
    ///   - configuration: The hosts.
    ///   - model: The model.
    ///   - file: The contents of its `config.json`, which hosts get.
    ///   - optimizer: What makes new weights of gradients.
    ///   - settings: How the run trains.
    ///   - adapter: The LoRA adapter that is trained in place of experts' weights; nil to train those.
    ///   - run: The run's number, which is not 0.
    ///   - pool: Threads for what the trainer itself computes.
    ///   - isStopping: Whether the run has been told to end.
    ///   - logger: Logs what becomes of hosts.
    /// - Throws: `TrainingError` for pools or an adapter that do not fit the model; `CheckpointError` for weights below the
    ///   adapter that cannot be used; why the log's folder cannot be used, in words.
    public init(
        _ configuration: Configuration,
        model: ModelConfiguration,
        file: [UInt8],
        optimizer: OptimizerPlan,
        settings: TrainingSettings,
        adapter: Adapter? = nil,
        run: UInt64,
        pool: WorkPool,
        isStopping: @escaping @Sendable () -> Bool,
        logger: Logger
    ) throws {
        let plans = try ShardPlan.shards(
            model,
            count: configuration.pools.count,
            optimizer: optimizer,
            settings: settings,
            adapter: adapter.map { ShardPlan.Adapter($0.settings, base: $0.base.fingerprint) }
        )
        if let folder = configuration.logFolder { try LogFiles.makeFolder(folder) }
        let share = configuration.logFileBytes / max(1, configuration.pools.count)
        let session = TrainingSession(run: run, trainer: UInt64.random(in: 1...UInt64.max))
        self.links = try zip(configuration.pools, plans)
            .map { pool, plan in
                try ShardLink(
                    pool.name,
                    targets: pool.targets,
                    plan: plan,
                    base: try adapter.map { try ShardBase($0.base, plan: plan) },
                    configuration: file,
                    session: session,
                    patience: configuration.call,
                    channel: configuration.channel,
                    files: configuration.logFolder.map { LogFiles($0, limit: share) },
                    logger: logger
                )
            }
        var shardOf = Array(repeating: 0, count: model.expertCount)
        for (shard, plan) in plans.enumerated() {
            for expert in plan.held.first?.experts ?? [] { shardOf[expert] = shard }
        }
        self.shardOf = shardOf
        self.run = run
        self.adapter = adapter?.settings
        self.settings = configuration
        self.model = model
        self.isStopping = isStopping
        self.pool = pool
        self.templates = Mutex(try plans.map { try ExpertShard(model, plan: $0, pool: pool) })
    }

    /// Connects to the hosts, and runs a body with them.
    ///
    /// - Parameter body: Trains.
    /// - Returns: The body's result.
    /// - Throws: What the body throws.
    public func running<Result: Sendable>(
        _ body: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for channel in self.links.flatMap(\.channels) {
                group.addTask { try await channel.run() }
            }
            group.addTask {
                while !Task.isCancelled {
                    try? await Task.sleep(for: .milliseconds(50))
                    for link in self.links { link.tick() }
                }
            }
            defer { group.cancelAll() }
            return try await body()
        }
    }

    /// Each shard's part of the bounds.
    ///
    /// An eighth of its files may be calls that are kept no more.
    private var logBounds: ShardLog.Bounds {
        let files = self.settings.logFolder == nil ? 0 : self.settings.logFileBytes
        return ShardLog.Bounds(
            memory: self.settings.logBytes / self.links.count,
            files: files / self.links.count / 8 * 7
        )
    }

    /// Bytes of all logs at most, in memory and in files.
    public var logLimit: (memory: Int, files: Int) { (self.settings.logBytes, self.logBounds.files * self.links.count) }

    private var wait: ShardWait { ShardWait(self.settings.patience, isStopping: self.isStopping) }

    // MARK: - LearningExperts

    /// Begins a step, ``LearningExperts/begin(step:)``.
    public func begin(step: Int) throws {
        for link in self.links { link.begin() }
        try self.boundLog()
    }

    /// Keeps the log within its bounds: wants newer states at half of them, and waits where the next step may not fit.
    ///
    /// A step's own calls are kept whatever they take.
    private func boundLog() throws {
        let wait = self.wait
        let limit = self.logLimit
        while true {
            let logs = self.links.compactMap { link in link.state.withLock { $0.book?.log } }
            func sum(_ bytes: (ShardLog) -> Int) -> Int { logs.reduce(0) { $0 + bytes($1) } }
            let (total, memory, next) = (sum(\.byteCount), sum(\.memoryByteCount), sum(\.largestStep))
            let stays = limit.files == 0 || logs.contains(where: \.filesAreAway)
            // Rows of a step leave the memory while it is computed, where they can.
            let isShort = memory + (stays ? next : 0) > limit.memory
            let isFull = total + next > limit.memory + limit.files
            if isFull || total > (limit.memory + limit.files) / 2 || (stays && memory > limit.memory / 2)
                || (isShort && sum(\.movingByteCount) == 0)
            {
                for link in self.links { link.wantHome() }
            }
            guard total > 0, isShort || isFull else { return }
            Thread.sleep(forTimeInterval: 0.01)
            guard let largest = zip(self.links, logs).max(by: { $0.1.byteCount < $1.1.byteCount })?.0 else { return }
            try wait.check(largest, "a snapshot, so that the log stays within \(limit.memory + limit.files) bytes")
        }
    }

    /// Computes experts' outputs, ``LearningExperts/forward(_:groups:tokens:places:)``.
    public func forward(
        _ layer: SparseLayer,
        groups: [SwitchModel.ExpertRows],
        tokens: FloatMatrix,
        places: [RowPlace]?
    ) throws -> FloatMatrix {
        let parts = self.parts(layer, groups, tokens, gradients: nil, places)
        let wait = self.wait
        let asked = parts.map { self.links[$0.shard].beginForward($0.pieces.map(\.rows)) }
        let results = FloatMatrix(uninitializedRows: tokens.rows, columns: tokens.columns)
        for (part, ids) in zip(parts, asked) {
            part.put(try self.links[part.shard].outputs(ids, wait), into: results)
        }
        return results
    }

    /// Computes gradients, ``LearningExperts/backward(_:groups:tokens:outputGradients:places:)``.
    public func backward(
        _ layer: SparseLayer,
        groups: [SwitchModel.ExpertRows],
        tokens: FloatMatrix,
        outputGradients: FloatMatrix,
        places: [RowPlace]
    ) throws -> FloatMatrix {
        let parts = self.parts(layer, groups, tokens, gradients: outputGradients, places)
        let wait = self.wait
        let asked = parts.map { self.links[$0.shard].beginBackward($0.pieces.map(\.rows)) }
        let results = FloatMatrix(uninitializedRows: tokens.rows, columns: tokens.columns)
        for (part, indices) in zip(parts, asked) {
            part.put(try self.links[part.shard].gradients(indices, wait), into: results)
        }
        return results
    }

    /// The squares of gradients, ``LearningExperts/squares()``.
    public func squares() throws -> [String: Double] {
        var squares: [String: Double] = [:]
        let layouts = self.templates.withLock { $0.map(\.layout) }
        for (link, layout) in zip(self.links, layouts) {
            let answer = try link.squares(self.wait)
            guard answer.squares.count == layout.entries.count else {
                throw ShardFailure(
                    "a host of \(link.name) has \(answer.squares.count) tensors, but the shard has \(layout.entries.count); use"
                        + " the same version on both sides"
                )
            }
            for index in answer.touched where Int(index) < layout.entries.count {
                squares[layout.entries[Int(index)].name] = answer.squares[Int(index)]
            }
        }
        return squares
    }

    /// Ends the step, ``LearningExperts/apply(rate:scale:)``.
    public func apply(rate: Double, scale: Double) throws {
        for link in self.links {
            link.apply(rate: rate, scale: scale)
            if link.place.step % self.settings.stepsPerSnapshot == 0 { link.wantHome() }
        }
    }

    /// Keeps the state that experts begin with, ``LearningExperts/load(_:state:steps:step:)``.
    public func load(
        _ weights: ParameterBuffer,
        state: [String: TensorView],
        steps: [String: Int],
        step: Int
    ) throws {
        let states = try self.templates.withLock { templates in
            try templates.map { template in
                try template.take(from: weights, state: state, steps: steps)
                return (try template.stateBytes(), try template.checksum(pool: self.pool))
            }
        }
        for (link, kept) in zip(self.links, states) {
            link.state.notify { state in
                state.kept = kept
                state.keptTime = .now
                state.book = ShardBook(
                    replicas: link.targets.count,
                    step: step,
                    bounds: self.logBounds,
                    now: .now
                )
            }
            link.tick()
        }
    }

    /// Brings the experts' state home, ``LearningExperts/state(into:)``.
    public func state(into weights: ParameterBuffer) throws -> [[TensorView]] {
        for link in self.links { link.wantSave() }
        var tensors: [[TensorView]] = []
        for (index, link) in self.links.enumerated() {
            let kept = try link.keptState(self.wait)
            try self.templates.withLock { templates in
                try templates[index].restore(kept.bytes)
                guard try templates[index].checksum(pool: self.pool) == kept.checksum else {
                    throw ShardFailure(
                        "the state of \(link.name) has another checksum than its host said; it is not saved: go on from the last save"
                            + " with --resume"
                    )
                }
                templates[index].put(into: weights)
                tensors.append(try templates[index].tensors(in: kept.bytes))
            }
        }
        return tensors
    }
}
