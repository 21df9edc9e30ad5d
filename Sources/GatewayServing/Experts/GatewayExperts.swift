// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

/// The gateway's own opinion on audited calls: computes their rows again, with the experts in its model folder.
///
/// Experts are loaded when they are asked for, in the type in which the hosts keep them, and the latest are kept within a
/// limit of memory. Work is done by one thread, beside the engine's, and takes no more of its time than the fraction of calls
/// that are audited, except where hosts differ.
final class GatewayExperts: Sendable {
    /// A call to compute again.
    private struct Job: Sendable {
        let call: LayerCall
        let layer: SparseLayer
        let type: DType
        let done: @Sendable (ByteBuffer?) -> Void
    }

    private struct Key: Hashable {
        let layer: SparseLayer
        let expert: Int
        let type: DType
    }

    private struct State {
        var jobs: [Job] = []
        var isEnded = false
        /// How long jobs took in all.
        var spent = Duration.zero
    }

    /// Loaded experts, the latest last; one thread at a time uses them.
    private struct Cache {
        var experts: [(key: Key, experts: LocalExperts)] = []

        mutating func take(_ key: Key) -> LocalExperts? {
            guard let index = self.experts.firstIndex(where: { $0.key == key }) else { return nil }
            let entry = self.experts.remove(at: index)
            self.experts.append(entry)
            return entry.experts
        }

        mutating func keep(_ experts: LocalExperts, _ key: Key, limit: Int) {
            self.experts.removeAll { $0.key == key }
            self.experts.append((key, experts))
            var bytes = self.experts.reduce(0) { $0 + $1.experts.byteCount }
            while bytes > limit, !self.experts.isEmpty { bytes -= self.experts.removeFirst().experts.byteCount }
        }
    }

    /// Jobs that may wait.
    private static let queueLimit = 4
    /// Time that jobs may take at once after a quiet time.
    private static let burst = Duration.milliseconds(500)

    private let checkpoint: Checkpoint
    private let held: [SparseLayer: Set<Int>]
    private let pool = WorkPool(threads: 1)
    private let memoryLimit: Int
    private let fraction: Double
    private let hasMixedTypes: Bool
    private let logger: Logger
    private let start = ContinuousClock.now
    private let state = Monitor(State())
    private let cache = Monitor(Cache())

    /// Looks which experts a model folder holds, and loads none; nil if there are none, as in the gateway's part of a
    /// checkpoint that was cut.
    ///
    /// - Parameters:
    ///   - checkpoint: The gateway's checkpoint.
    ///   - memoryLimit: Bytes of loaded experts that are kept.
    ///   - fraction: The fraction of calls that are audited.
    ///   - logger: Logs experts that cannot be loaded.
    init?(checkpoint: Checkpoint, memoryLimit: Int, fraction: Double, logger: Logger) {
        let held = checkpoint.heldExperts.mapValues { Set($0) }.filter { !$0.value.isEmpty }
        guard !held.isEmpty else { return nil }
        self.checkpoint = checkpoint
        self.held = held
        self.memoryLimit = memoryLimit
        self.fraction = fraction
        self.hasMixedTypes = Self.types(of: checkpoint).count > 1
        self.logger = logger
    }

    /// When the rows of calls may be computed here.
    ///
    /// - Parameters:
    ///   - assignments: The calls' experts.
    ///   - layer: Their layer.
    /// - Returns: Never if one of them is not held, and only in conflicts while the time for audits is used up.
    func policy(_ assignments: [PoolAssignment], in layer: SparseLayer) -> RecomputePolicy {
        guard let held = self.held[layer],
            assignments.allSatisfy({ $0.groups.allSatisfy { held.contains($0.expert) } })
        else { return .never }
        let allowed = Self.burst + self.start.duration(to: .now) * self.fraction
        let isFree = self.state.withLock {
            $0.jobs.count < Self.queueLimit && (self.fraction >= 1 || $0.spent < allowed)
        }
        return isFree ? .always : .inConflicts
    }

    /// Has a call computed by ``run()``.
    ///
    /// - Parameters:
    ///   - call: The call.
    ///   - layer: Its layer.
    ///   - type: The type in which its hosts keep weights.
    ///   - done: Gets the rows in the call's order and the wire's type, or nil if they cannot be computed; called on
    ///     another thread.
    func compute(
        _ call: LayerCall,
        in layer: SparseLayer,
        type: DType,
        done: @escaping @Sendable (ByteBuffer?) -> Void
    ) {
        let isTaken = self.state.notify { state in
            guard !state.isEnded else { return false }
            state.jobs.append(Job(call: call, layer: layer, type: type, done: done))
            return true
        }
        if !isTaken { done(nil) }
    }

    /// Computes calls until ``stop()``; blocks.
    func run() {
        while let job = self.next() {
            let start = ContinuousClock.now
            job.done(self.rows(of: job.call, in: job.layer, type: job.type, isFresh: false))
            let time = start.duration(to: .now)
            self.state.withLock { $0.spent += time }
        }
    }

    /// Ends ``run()``; calls that wait are not computed.
    func stop() {
        let jobs = self.state.notify { state in
            state.isEnded = true
            defer { state.jobs = [] }
            return state.jobs
        }
        for job in jobs { job.done(nil) }
    }

    /// Computes a call's rows here and now.
    ///
    /// - Parameters:
    ///   - call: The call.
    ///   - layer: Its layer.
    ///   - type: The type in which its hosts keep weights.
    ///   - isFresh: Whether to load the experts anew, so that no damage to a copy in memory counts as an opinion.
    /// - Returns: The rows in the call's order and the wire's type; nil if they cannot be computed.
    func rows(of call: LayerCall, in layer: SparseLayer, type: DType, isFresh: Bool) -> ByteBuffer? {
        if type == .bfloat16, self.hasMixedTypes { return nil }
        let (rows, columns) = (call.assignment.rowCount, call.columns)
        let sent = call.isBackward ? 2 * rows : rows
        let input = FloatMatrix(uninitializedRows: sent, columns: columns)
        let output = FloatMatrix(uninitializedRows: rows, columns: columns)
        call.tokens.withUnsafeReadableBytes { bytes in
            if let base = bytes.baseAddress { call.rowType.read(base, count: sent * columns, into: input.pointer) }
        }
        do {
            var row = 0
            for group in call.assignment.groups {
                let key = Key(layer: layer, expert: group.expert, type: type)
                let experts = try self.experts(key, isFresh: isFresh)
                let groups = [ExpertRows(expert: group.expert, rows: group.rows.count)]
                let (tokens, result) = (input.pointer + row * columns, output.pointer + row * columns)
                if call.isBackward {
                    try experts.backward(
                        layer: layer,
                        groups: groups,
                        tokens: tokens,
                        outputGradients: tokens + rows * columns,
                        inputGradients: result
                    )
                } else {
                    try experts.forward(layer: layer, groups: groups, tokens: tokens, outputs: result)
                }
                row += group.rows.count
            }
        } catch {
            self.logger.error("the gateway cannot compute an expert for an audit", metadata: ["error": "\(error)"])
            return nil
        }
        let byteCount = rows * columns * call.rowType.byteCount
        var tensor = ByteBufferAllocator().buffer(capacity: byteCount)
        tensor.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
            guard let base = target.baseAddress else { return 0 }
            call.rowType.write(output.pointer, count: rows * columns, to: base)
            return byteCount
        }
        return tensor
    }

    // MARK: - Inside

    /// Waits for a job; nil once there will be none.
    private func next() -> Job? {
        let next = self.state.wait { state -> [Job]? in
            if state.isEnded { return [] }
            return state.jobs.isEmpty ? nil : [state.jobs.removeFirst()]
        }
        return next?.first
    }

    private func experts(_ key: Key, isFresh: Bool) throws -> LocalExperts {
        if !isFresh, let known = self.cache.withLock({ $0.take(key) }) { return known }
        let storage: WeightStorage =
            switch key.type {
            case .bfloat16: .bfloat16
            case .int8: .int8
            default: .float32
            }
        let loaded = try LocalExperts(
            checkpoint: self.checkpoint,
            experts: .only([key.layer: [key.expert]]),
            pool: self.pool,
            storage: storage
        )
        self.cache.withLock { $0.keep(loaded, key, limit: self.memoryLimit) }
        return loaded
    }

    /// The types in which a checkpoint stores experts: hosts that keep each as it is answer in mixed precision.
    static func types(of checkpoint: Checkpoint) -> Set<DType> {
        let matrices = checkpoint.configuration.feedForwardMatrices
        var types: Set<DType> = []
        for (layer, experts) in checkpoint.heldExperts {
            for expert in experts {
                for matrix in matrices {
                    if let view = try? checkpoint.tensor(.expert(layer, expert: expert, matrix)) {
                        types.insert(view.dtype)
                    }
                }
            }
        }
        return types
    }
}
