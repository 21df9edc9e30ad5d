// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// A micro-batch of a decoder call: some rows on their way through the blocks, from one layer of experts to the next.
final class DecoderLane {
    private let model: SwitchTransformer
    private let step: StepContext
    private let positions: [DecoderPosition]
    private let caches: [DecoderCache]
    /// Each row's encoded sequence; none in a model without an encoder.
    private let sequences: [EncodedSequence]
    private let bias: RelativeBias.Span?

    /// `[tokens, d_model]`.
    private(set) var hidden: FloatMatrix
    /// For each row the index of its last token.
    let last: [Int]
    private var block = 0
    private var out: (sublayer: SparseFeedForward, work: SparseFeedForward.Out)?

    /// Looks up the tokens' embeddings and makes room in the rows' caches.
    ///
    /// - Parameters:
    ///   - model: The model.
    ///   - rows: The rows, checked; the record names them by their indices in the whole array.
    ///   - experts: Where the experts are.
    ///   - options: How to run the call.
    init(
        _ model: SwitchTransformer,
        rows: ArraySlice<DecoderInput>,
        experts: any ExpertExecutor,
        options: StepOptions
    ) {
        var positions: [DecoderPosition] = []
        var last: [Int] = []
        var sequences: [Int32] = []
        var tokens: [Int32] = []
        var caches: [DecoderCache] = []
        var encoded: [EncodedSequence] = []
        var count = 0
        for index in rows.indices { count += rows[index].tokens.count }
        positions.reserveCapacity(count)
        sequences.reserveCapacity(count)
        tokens.reserveCapacity(count)
        last.reserveCapacity(rows.count)
        caches.reserveCapacity(rows.count)
        if model.configuration.hasEncoder { encoded.reserveCapacity(rows.count) }
        var (hasRoutes, length) = (false, 1)
        for index in rows.indices {
            let row = rows[index]
            for offset in row.tokens.indices {
                let position = row.cache.length + offset
                positions.append(DecoderPosition(row: caches.count, position: position))
                sequences.append(Int32(index))
                tokens.append(row.tokens[offset])
                length = max(length, position + 1)
            }
            last.append(positions.count - 1)
            row.cache.reserve(row.tokens.count)
            caches.append(row.cache)
            if let sequence = row.cache.sequence { encoded.append(sequence) }
            hasRoutes = hasRoutes || row.routes != nil
        }
        self.model = model
        self.step = StepContext(
            options: options,
            experts: experts,
            pool: model.pool,
            sequences: sequences,
            given: hasRoutes ? GivenRoutes(rows.map { ($0.routes, $0.tokens.count) }) : nil
        )
        self.positions = positions
        self.last = last
        self.caches = caches
        self.sequences = encoded
        self.bias = model.decoderBias?.span(length: length)
        self.hidden = model.embedding(tokens)
    }

    /// Whether all blocks are done.
    var isFinished: Bool {
        self.block == self.model.decoderBlocks.count
    }

    /// Whether ``advance(record:)`` would run without waiting for experts.
    var isReady: Bool {
        self.out?.work.isReady ?? true
    }

    /// Waits for the experts in flight, then computes until the next experts are in flight, or to the end.
    func advance(record: inout RoutingRecord) throws {
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
                positions: self.positions,
                caches: self.caches,
                bias: self.bias,
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
            positions: self.positions,
            sequences: self.sequences,
            pool: self.model.pool
        )
        return (hidden, crossed)
    }

    /// Cancels the lane.
    func cancel() {
        self.out?.work.cancel()
    }
}
