// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// How to run one call of the model.
public struct StepOptions: Sendable, Hashable {
    /// Which tokens to compute logits for.
    public enum Logits: Sendable, Hashable {
        /// The last token of each row.
        case last

        /// The last token of each row, and only those logits that can be the greatest: some others are minus infinity.
        ///
        /// The greatest one and the lowest id that has it are the same as with ``last``, but the sum over all is
        /// unknown.
        case greatest

        /// Every token, in the order of the rows.
        case all
    }

    /// How many tokens an expert takes.
    public var capacityPolicy: CapacityPolicy

    /// Whether to keep the hidden states after each block.
    public var collectHiddenStates: Bool

    /// Whether to keep the routers' decisions.
    public var collectRouting: Bool

    /// Whether to keep what the routers' losses are computed from.
    public var collectRouterStatistics = false

    /// Which tokens to compute logits for.
    public var logits: Logits

    /// The number of micro-batches that a call is cut into, which take turns: while the experts of one are in flight,
    /// the others compute.
    ///
    /// No result depends on it. A call is cut into fewer where there are fewer sequences, and not at all where an
    /// expert's capacity depends on the whole batch or where decisions or hidden states are collected.
    public var microBatches: Int

    /// Options with the defaults of serving.
    ///
    /// - Parameters:
    ///   - capacityPolicy: How many tokens an expert takes.
    ///   - collectHiddenStates: Whether to keep the hidden states after each block.
    ///   - collectRouting: Whether to keep the routers' decisions.
    ///   - logits: Which tokens to compute logits for.
    ///   - microBatches: The number of micro-batches that a call is cut into, at least 1.
    public init(
        capacityPolicy: CapacityPolicy = .checkpoint,
        collectHiddenStates: Bool = false,
        collectRouting: Bool = false,
        logits: Logits = .last,
        microBatches: Int = 1
    ) {
        self.capacityPolicy = capacityPolicy
        self.collectHiddenStates = collectHiddenStates
        self.collectRouting = collectRouting
        self.logits = logits
        self.microBatches = microBatches
    }

    /// Cuts sequences into micro-batches of about as many tokens each, in their order.
    ///
    /// - Parameter lengths: Tokens of each sequence.
    /// - Returns: Ranges of sequences, none empty; one range where the call must not be cut.
    func microBatches(of lengths: [Int]) -> [Range<Int>] {
        let perBatch = self.capacityPolicy.isShared || self.collectRouting || self.collectHiddenStates
        let parts = min(perBatch ? 1 : max(self.microBatches, 1), lengths.count)
        guard parts > 1 else {
            return lengths.isEmpty ? [] : [0..<lengths.count]
        }
        let total = lengths.reduce(0, +)
        var ranges: [Range<Int>] = []
        var start = 0
        var tokens = 0
        for (index, length) in lengths.enumerated() {
            tokens += length
            // Every micro-batch gets its share, and those after it at least one sequence each.
            let left = parts - ranges.count - 1
            let isFull = tokens * parts >= total * (ranges.count + 1) || lengths.count - index - 1 == left
            if left > 0, isFull, lengths.count - index - 1 >= left {
                ranges.append(start..<(index + 1))
                start = index + 1
            }
        }
        ranges.append(start..<lengths.count)
        return ranges
    }
}

/// What the layers of one call have in common.
struct StepContext {
    let options: StepOptions
    let experts: any ExpertExecutor
    let pool: WorkPool

    /// For each token, the index of its sequence in the call's inputs.
    let sequences: [Int32]

    /// Where some tokens go whatever the routers would choose; nil where there are none.
    let given: GivenRoutes?

    /// The lists of the sparse layers, which use them in turn.
    var memory = LayerMemory()
}
