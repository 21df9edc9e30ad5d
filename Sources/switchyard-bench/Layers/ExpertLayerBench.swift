// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// One sparse layer as the gateway runs it, timed alone: router, dispatch, experts wherever they are, combine.
///
/// Tokens are random and new at each call, so that experts are chosen anew.
struct ExpertLayerBench: Sendable {
    private let layer: SparseLayer
    private let router: PackedMatrix
    private let pool: WorkPool
    private let inputs: FloatMatrix
    private let capacity: Int

    /// Batches of tokens that take turns.
    private static let batches = 16

    /// The most tokens of one call.
    static let tokenLimit = 4096

    /// Prepares a layer.
    ///
    /// - Parameters:
    ///   - checkpoint: The model; its first sparse layer of the decoder is run, else its first one.
    ///   - pool: Threads that the router and local experts compute with.
    ///   - tokens: The most tokens of one call.
    /// - Throws: `CheckpointError` for a router that is missing, ``BenchError`` for a model without sparse layers.
    init(checkpoint: Checkpoint, pool: WorkPool, tokens: Int) throws {
        let configuration = checkpoint.configuration
        let layers = configuration.sparseLayers
        guard let layer = layers.first(where: { $0.stack == .decoder }) ?? layers.first else {
            throw BenchError("\(checkpoint.directory) has no sparse layers; name another model")
        }
        self.layer = layer
        self.pool = pool
        self.capacity = configuration.expertCapacity
        let view = try checkpoint.tensor(.router(layer))
        let type: DType
        switch view.dtype {
        case .bfloat16: type = .bfloat16
        case .float16: type = .float16
        default: type = .float32
        }
        self.router = view.withUnsafeBytes { bytes in
            PackedMatrix(
                packing: bytes,
                as: type,
                outputs: configuration.expertCount,
                inputs: configuration.modelWidth,
                dtype: .float32
            )
        }
        self.inputs = FloatMatrix(uninitializedRows: Self.batches * tokens, columns: configuration.modelWidth)
        var numbers = BenchNumbers(seed: 5)
        numbers.fill(self.inputs)
    }

    /// Runs the layer once.
    ///
    /// - Parameters:
    ///   - tokens: Rows.
    ///   - call: The number of the call, which chooses among the inputs.
    ///   - experts: Where the experts are.
    /// - Returns: How long it took, and the layer's output: `[tokens, d_model]`.
    /// - Throws: What the executor throws; ``BenchError`` where rows were dropped.
    func run(tokens: Int, call: Int, experts: any ExpertExecutor) throws -> (time: Duration, output: FloatMatrix) {
        let width = self.inputs.columns
        let hidden = FloatMatrix(uninitializedRows: tokens, columns: width)
        let first = (call % Self.batches) * (self.inputs.rows / Self.batches)
        hidden.pointer.update(from: self.inputs.pointer + first * width, count: tokens * width)
        let sequences = [Int32](repeating: 0, count: tokens)

        let start = ContinuousClock.now
        let plan = self.plan(hidden, sequences: sequences)
        let request = ExpertLayerRequest(
            layer: self.layer,
            plan: plan,
            hidden: hidden,
            sequences: sequences
        )
        let outputs = try experts.execute(request)
        let combined = FloatMatrix(uninitializedRows: tokens, columns: width)
        combined.pointer.update(from: hidden.pointer, count: tokens * width)
        for chunk in outputs.chunks {
            chunk.storage.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress, bytes.count == chunk.rows.count * width * 4 else { return }
                for (index, row) in chunk.rows.enumerated() {
                    let target = combined.pointer + Int(plan.sources[row]) * width
                    Residual.addScaled(
                        target,
                        base + index * width * 4,
                        scale: plan.combineWeights[row],
                        count: width,
                        into: target
                    )
                }
            }
        }
        let time = start.duration(to: .now)
        guard outputs.dropped.isEmpty else {
            throw BenchError(
                "\(outputs.dropped.reduce(0) { $0 + $1.rows.count }) rows were dropped: \(outputs.dropped)"
            )
        }
        return (time, combined)
    }

    /// The gating layer: float32 logits, softmax, the most probable expert.
    private func plan(_ hidden: FloatMatrix, sequences: [Int32]) -> DispatchPlan {
        let experts = self.router.outputs
        let scores = FloatMatrix(uninitializedRows: hidden.rows, columns: experts)
        self.pool.run([Product(self.router, hidden, into: scores)])
        var choices: [Int32] = []
        var probabilities: [Float] = []
        for row in 0..<hidden.rows {
            let values = scores.pointer + row * experts
            Softmax.apply(values, count: experts)
            var best = 0
            for expert in 1..<max(1, experts) where values[expert] > values[best] { best = expert }
            choices.append(Int32(best))
            probabilities.append(values[best])
        }
        return DispatchPlan(
            choices: choices,
            probabilities: probabilities,
            sequences: sequences,
            expertCount: experts,
            policy: .unlimited,
            checkpointCapacity: self.capacity
        )
    }
}
