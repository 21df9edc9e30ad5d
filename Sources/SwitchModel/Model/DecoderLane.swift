// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// A micro-batch of a decoder call: some rows on their way through the blocks, from one layer of experts to the next.
struct DecoderLane {
    private let model: SwitchTransformer
    private let step: StepContext
    /// The lists of the rows.
    let memory: LaneMemory

    /// `[tokens, d_model]`.
    private(set) var hidden: FloatMatrix
    private var block = 0
    private var out: (sublayer: SparseFeedForward, work: SparseFeedForward.Out)?

    /// For each row the index of its last token.
    var last: [Int] { self.memory.last }

    /// Looks up the tokens' embeddings and makes room in the rows' caches.
    ///
    /// - Parameters:
    ///   - model: The model.
    ///   - rows: The rows, checked; the record names them by their indices in the whole array.
    ///   - experts: Where the experts are.
    ///   - options: How to run the call.
    ///   - memory: Lists for the lane alone, of the same model; what they hold is replaced.
    init(
        _ model: SwitchTransformer,
        rows: ArraySlice<DecoderInput>,
        experts: any ExpertExecutor,
        options: StepOptions,
        memory: LaneMemory = LaneMemory()
    ) {
        let (length, hasRoutes) = memory.take(rows)
        if memory.bias.map({ $0.length < length }) ?? true {
            memory.bias = model.decoderBias?.span(length: (length + Self.biasStep - 1) / Self.biasStep * Self.biasStep)
        }
        self.model = model
        self.step = StepContext(
            options: options,
            experts: experts,
            pool: model.pool,
            sequences: memory.sequences,
            given: hasRoutes ? GivenRoutes(rows.map { ($0.routes, $0.tokens.count) }) : nil,
            memory: memory.layer
        )
        self.memory = memory
        self.hidden = model.embedding(memory.tokens)
    }

    /// Biases are laid out for this many positions at a time, so that most steps find those of the step before.
    private static let biasStep = 64

    /// Whether all blocks are done.
    var isFinished: Bool {
        self.block == self.model.decoderBlocks.count
    }

    /// Whether ``advance(record:)`` would run without waiting for experts.
    var isReady: Bool {
        self.out?.work.isReady ?? true
    }

    /// Waits for the experts in flight, then computes until the next experts are in flight, or to the end.
    mutating func advance(record: inout RoutingRecord) throws {
        if let (sublayer, work) = self.out {
            self.out = nil
            self.hidden = try sublayer.finish(work, step: self.step, record: &record)
            self.block += 1
        }
        while !self.isFinished {
            let block = self.model.decoderBlocks[self.block]
            if self.step.options.collectHiddenStates {
                record.append(hiddenState: self.hidden, stack: .decoder)
            }
            let attended = block.attention(
                block.attentionNorm(self.hidden, pool: self.model.pool),
                positions: self.memory.positions,
                caches: self.memory.caches,
                bias: self.memory.bias,
                pool: self.model.pool
            )
            let (hidden, update) = self.attendAcross(block, attended)
            switch block.feedForward.begin(hidden, attended: update, step: self.step, record: &record) {
            case .done(let hidden):
                self.hidden = hidden
                self.block += 1
            case .out(let work, let sublayer):
                self.out = (sublayer, work)
                return
            }
        }
    }

    /// Attends to the encoded sequences, where there are any.
    ///
    /// - Parameters:
    ///   - block: The block.
    ///   - attended: The output of its self-attention, `[tokens, d_model]`.
    /// - Returns: The residual, and what is still to be added to it.
    private func attendAcross(
        _ block: DecoderBlock,
        _ attended: FloatMatrix
    ) -> (hidden: FloatMatrix, update: FloatMatrix) {
        guard let cross = block.cross else { return (self.hidden, attended) }
        let (hidden, normed) = cross.norm.adding(attended, to: self.hidden, pool: self.model.pool)
        let crossed = cross.attention(
            normed,
            positions: self.memory.positions,
            sequences: self.memory.encoded,
            pool: self.model.pool
        )
        return (hidden, crossed)
    }

    /// Cancels the lane.
    func cancel() {
        self.out?.work.cancel()
    }
}
