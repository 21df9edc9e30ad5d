// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

/// What the operations of one pass over one part need at hand.
struct PartRun {
    let configuration: ModelConfiguration
    let weights: ParameterBuffer
    let pool: WorkPool
    let level: KernelLevel
    /// Where activations lie.
    var arena: Arena
    /// Where activations lie that are float32 numbers in any case; usually the same.
    let exact: Arena
    /// The memory of the block that is computed, where what it keeps is packed.
    let packs: Arena
    let settings: TrainingSettings
    /// Where dropout and jitter come from; nil when evaluating.
    let randomness: StepRandomness?
    let gradients: Gradients?
    let sums: StepSums
    let routing: StepRouting
    /// Experts that are computed elsewhere; nil where the weights' own are.
    var experts: ExpertsElsewhere?

    /// The same with activations in the memory that is packed block by block.
    var packing: PartRun {
        var run = self
        run.arena = self.packs
        return run
    }

    /// Shares rows among the threads, where they are many.
    func share(_ rows: Int, width: Int, body: (Range<Int>) -> Void) {
        WorkPool.share(rows, width: width, among: self.pool, body: body)
    }

    func dropout(_ kind: RandomSite.Kind, _ stack: Stack, _ block: Int, rate: Double? = nil) -> Dropout? {
        Dropout(
            rate: rate ?? self.settings.dropout,
            site: RandomSite(kind: kind, stack: stack, block: block),
            randomness: self.randomness,
            level: self.level
        )
    }
}

/// Sums of a step that are not products, in float64: the gradients of norms, relative biases, routers' biases and those of other
/// products, and those of the embedding's rows.
///
/// Each place that feeds a tensor has sums of its own, a sequence's share at a time in the order of the sequences, or for
/// products' biases a row at a time in the order of the rows. They are added to the gradients once, at the step's end.
final class StepSums {
    private(set) var norms: [Int: [Double]] = [:]
    private(set) var routerBiases: [Int: [Double]] = [:]
    private var columns: [Int: [Double]] = [:]
    /// `[heads, buckets]` for each block.
    private(set) var biases: [Stack: [[Double]]] = [:]
    let embeddings: [Stack: RowSums]

    init(_ configuration: ModelConfiguration) {
        self.embeddings = [
            .encoder: RowSums(columns: configuration.modelWidth),
            .decoder: RowSums(columns: configuration.modelWidth),
        ]
        for stack in Stack.allCases {
            self.biases[stack] = Array(
                repeating: Array(repeating: 0, count: configuration.headCount * configuration.relativeBuckets),
                count: configuration.blockCount(stack)
            )
        }
    }

    func clear() {
        self.norms.removeAll(keepingCapacity: true)
        self.routerBiases.removeAll(keepingCapacity: true)
        self.columns.removeAll(keepingCapacity: true)
        for (stack, blocks) in self.biases {
            self.biases[stack] = blocks.map { Array(repeating: 0, count: $0.count) }
        }
        for rows in self.embeddings.values { rows.clear() }
    }

    func addNorm(_ index: Int, _ values: UnsafePointer<Double>, count: Int) {
        Self.add(values, count, to: &self.norms[index, default: Array(repeating: 0, count: count)])
    }

    func addRouterBias(_ index: Int, _ values: UnsafePointer<Double>, count: Int) {
        Self.add(values, count, to: &self.routerBiases[index, default: Array(repeating: 0, count: count)])
    }

    func addBias(_ stack: Stack, block: Int, _ values: UnsafePointer<Double>, count: Int) {
        Self.add(values, count, to: &self.biases[stack, default: []][block])
    }

    /// Adds the columns of rows to what a product's bias has; one chain over all its rows.
    func addColumns(_ index: Int, of rows: Rows, pool: WorkPool, level: KernelLevel) {
        guard rows.count > 0 else { return }
        self.columns[index, default: Array(repeating: 0, count: rows.columns)]
            .withUnsafeMutableBufferPointer { sums in
                guard let sums = sums.baseAddress else { return }
                // Threads take columns, so that each sum runs over the rows in order.
                WorkPool.share(rows.columns, width: rows.count, among: pool) { range in
                    ck_column_sums(
                        level.rawValue,
                        rows.pointer + range.lowerBound,
                        rows.stride,
                        rows.count,
                        range.count,
                        sums + range.lowerBound
                    )
                }
            }
    }

    /// Gives the products' biases that are wanted their gradients; the same again when it is called again.
    func finishColumns(into gradients: Gradients) {
        for (index, sums) in self.columns where gradients.wanted[index] {
            let target = gradients.values.start(index)
            for column in sums.indices { target[column] = Float(sums[column]) }
            gradients.touched[index] = true
        }
    }

    private static func add(_ values: UnsafePointer<Double>, _ count: Int, to sums: inout [Double]) {
        for index in 0..<count { sums[index] += values[index] }
    }

    /// Adds everything to the gradients that are wanted.
    func finish(into gradients: Gradients, _ configuration: ModelConfiguration, _ parameters: ModelParameters) {
        for (index, sums) in self.norms.merging(self.routerBiases, uniquingKeysWith: { first, _ in first })
        where gradients.wanted[index] {
            let target = gradients.values.start(index)
            for column in sums.indices { target[column] = Float(sums[column]) }
            gradients.touched[index] = true
        }
        self.finishColumns(into: gradients)
        let embedding = parameters.embedding.index
        // A tied embedding has the head's gradients already.
        if gradients.wanted[embedding] { gradients.prepareToAdd(embedding) }
        for stack in Stack.allCases {
            self.finishBias(stack, into: gradients, configuration, parameters)
            if gradients.wanted[embedding] { self.embeddings[stack]?.add(to: gradients.values.start(embedding)) }
        }
    }

    private func finishBias(
        _ stack: Stack,
        into gradients: Gradients,
        _ configuration: ModelConfiguration,
        _ parameters: ModelParameters
    ) {
        guard let index = parameters.relativeBias[stack], gradients.wanted[index], let blocks = self.biases[stack]
        else { return }
        let target = gradients.values.start(index)
        for head in 0..<configuration.headCount {
            for bucket in 0..<configuration.relativeBuckets {
                let place = head * configuration.relativeBuckets + bucket
                let sum = blocks.reduce(0.0) { $0 + $1[place] }
                target[bucket * configuration.headCount + head] = Float(sum)
            }
        }
        gradients.touched[index] = true
    }
}
