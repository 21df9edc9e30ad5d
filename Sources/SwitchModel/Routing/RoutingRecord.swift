// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes
public import TensorKernels

/// What happened to the tokens of a call of the model.
///
/// Sequences are named by their index in the call's inputs. Counts are always kept; choices and hidden states only
/// where `StepOptions` asks for them. A record that is handed to several calls adds them up.
public struct RoutingRecord: Sendable {
    /// Names a count of dropped tokens.
    public struct Drop: Sendable, Hashable {
        /// The index of the sequence in the call's inputs.
        public var sequence: Int

        /// The layer in which the tokens got no expert output.
        public var layer: SparseLayer

        /// Why.
        public var reason: DropReason

        /// Names a count.
        ///
        /// - Parameters:
        ///   - sequence: The index of the sequence in the call's inputs.
        ///   - layer: The sparse layer.
        ///   - reason: Why tokens were dropped.
        public init(sequence: Int, layer: SparseLayer, reason: DropReason) {
            self.sequence = sequence
            self.layer = layer
            self.reason = reason
        }
    }

    /// The decisions of one sparse layer, one element per token in the order of the call's inputs.
    public struct LayerRouting: Sendable {
        /// The layer.
        public var layer: SparseLayer

        /// The router's choice for each token, dropped or not.
        public var choices: [Int32]

        /// The probability of that choice.
        public var probabilities: [Float]

        /// Why a token got no expert output; nil where it got one.
        public var dropped: [DropReason?]

        /// Number of experts in the layer.
        public var expertCount: Int

        /// How many tokens chose each expert, dropped or not.
        package var expertCounts: [Int] {
            var counts = [Int](repeating: 0, count: self.expertCount)
            for choice in self.choices {
                counts[Int(choice)] += 1
            }
            return counts
        }
    }

    /// For each sequence, the number of (token, sparse layer) pairs that the routers saw.
    public private(set) var routedPerSequence: [Int] = []

    /// Dropped tokens by sequence, layer and reason; only counts above zero are present.
    public private(set) var drops: [Drop: Int] = [:]

    /// Tokens that went without an expert output because given routes say so, as ``drops``; nothing was lost here.
    public private(set) var givenDrops: [Drop: Int] = [:]

    /// What the losses of each input's routers are computed from, in the order of the layers, where
    /// `StepOptions.collectRouterStatistics` asked for it.
    public private(set) var statistics: [Int: [RouterStatistics]] = [:]

    /// The routers' decisions in the order of the layers, where `StepOptions.collectRouting` asked for them.
    public private(set) var layers: [LayerRouting] = []

    /// For each stack the embeddings, then each block's output, the last one after the final norm, each
    /// `[tokens, d_model]`; where `StepOptions.collectHiddenStates` asked for them.
    public private(set) var hiddenStates: [Stack: [FloatMatrix]] = [:]

    /// An empty record.
    public init() {}

    /// The number of (token, sparse layer) pairs that the routers saw.
    public var routedCount: Int {
        self.routedPerSequence.reduce(0, +)
    }

    /// The number of (token, sparse layer) pairs without an expert output.
    package var droppedCount: Int {
        self.drops.values.reduce(0, +)
    }

    /// The number of (token, sparse layer) pairs of one sequence without an expert output.
    ///
    /// - Parameter sequence: The index of the sequence in the call's inputs.
    /// - Returns: The count over all layers and reasons.
    public func dropped(sequence: Int) -> Int {
        self.drops.reduce(0) { $1.key.sequence == sequence ? $0 + $1.value : $0 }
    }

    /// The dropped tokens of one sequence in one layer for one reason.
    ///
    /// - Parameters:
    ///   - sequence: The index of the sequence in the call's inputs.
    ///   - layer: The sparse layer.
    ///   - reason: Why tokens were dropped.
    /// - Returns: The count.
    public func dropped(sequence: Int, layer: SparseLayer, reason: DropReason) -> Int {
        self.drops[Drop(sequence: sequence, layer: layer, reason: reason)] ?? 0
    }

    /// The dropped tokens of all sequences and layers for one reason.
    ///
    /// - Parameter reason: Why tokens were dropped.
    /// - Returns: The count.
    public func dropped(reason: DropReason) -> Int {
        self.drops.reduce(0) { $1.key.reason == reason ? $0 + $1.value : $0 }
    }

    /// Adds another record's counts for some of its sequences to one sequence of this record; choices and hidden states
    /// are left out.
    ///
    /// - Parameters:
    ///   - other: The record of one step.
    ///   - sequences: The sequences of the step that belong together: the rows of one request.
    ///   - sequence: The index under which this record counts them.
    public mutating func add(_ other: RoutingRecord, sequences: Range<Int>, as sequence: Int) {
        for index in sequences where index < other.routedPerSequence.count {
            self.noteRouted(sequence: sequence, count: other.routedPerSequence[index])
        }
        for (drop, count) in other.drops where sequences.contains(drop.sequence) {
            self.drops[Drop(sequence: sequence, layer: drop.layer, reason: drop.reason), default: 0] += count
        }
    }

    /// Where one input's tokens are in each of ``layers``.
    ///
    /// - Parameter input: The input's index in the call.
    /// - Returns: A range of tokens; empty where no decisions were kept.
    func tokens(ofInput input: Int) -> Range<Int> {
        guard !self.layers.isEmpty, self.routedPerSequence.indices.contains(input) else {
            return 0..<0
        }
        let before = self.routedPerSequence[..<input].reduce(0, +) / self.layers.count
        return before..<(before + self.routedPerSequence[input] / self.layers.count)
    }

    /// Keeps what an input's losses are computed from.
    mutating func append(_ statistics: RouterStatistics, input: Int) {
        self.statistics[input, default: []].append(statistics)
    }

    /// Counts a token that is dropped because a given route says so.
    mutating func noteGivenDrop(sequence: Int32, layer: SparseLayer, reason: DropReason) {
        self.givenDrops[Drop(sequence: Int(sequence), layer: layer, reason: reason), default: 0] += 1
    }

    /// Counts the tokens that a router saw.
    mutating func noteRouted(sequences: [Int32]) {
        self.routedPerSequence.reserveCapacity(Int(sequences.last ?? 0) + 1)
        for token in sequences.indices {
            self.noteRouted(sequence: Int(sequences[token]), count: 1)
        }
    }

    private mutating func noteRouted(sequence: Int, count: Int) {
        while self.routedPerSequence.count <= sequence {
            self.routedPerSequence.append(0)
        }
        self.routedPerSequence[sequence] += count
    }

    /// Counts a dropped token.
    mutating func noteDrop(sequence: Int32, layer: SparseLayer, reason: DropReason) {
        self.drops[Drop(sequence: Int(sequence), layer: layer, reason: reason), default: 0] += 1
    }

    /// Keeps a layer's decisions.
    mutating func append(_ layer: LayerRouting) {
        self.layers.append(layer)
    }

    /// Keeps a hidden state.
    mutating func append(hiddenState: FloatMatrix, stack: Stack) {
        self.hiddenStates[stack, default: []].append(hiddenState)
    }
}
