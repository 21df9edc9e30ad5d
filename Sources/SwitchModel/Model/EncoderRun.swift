// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// Some sequences on their way through the encoder, a block at a time.
///
/// Between two pieces of work the caller may do something else while the experts compute. The result does not depend on
/// the timing of the pieces. A run belongs to one thread at a time.
public final class EncoderRun {
    private let model: SwitchTransformer
    private let lengths: [Int]
    private let step: StepContext
    private let bias: RelativeBias.Span?

    /// `[tokens, d_model]`, the sequences one after another.
    private var hidden: FloatMatrix
    /// Blocks of the encoder that are done.
    private var block = 0
    private var out: (sublayer: SparseFeedForward, work: SparseFeedForward.Out)?
    private var keys: [[TypedRows]]
    private var values: [[TypedRows]]
    /// Blocks of the decoder whose cross keys and values are done; the first only when the encoder's blocks are.
    private var crossed = 0

    /// Looks up the sequences' embeddings.
    ///
    /// - Parameters:
    ///   - model: The model.
    ///   - inputs: Token ids of each sequence, at least one each, and at least one sequence.
    ///   - routes: For each sequence where its tokens go, nil where the routers choose; empty where they always do.
    ///   - experts: Where the experts are.
    ///   - options: How to run; `logits` and `microBatches` are ignored.
    /// - Throws: `ModelError` for a model without an encoder, no sequences, empty sequences and unknown ids.
    public convenience init(
        _ model: SwitchTransformer,
        inputs: [[Int32]],
        routes: [StackRoutes?] = [],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions()
    ) throws {
        try model.requireValid(inputs, routes: routes)
        guard !inputs.isEmpty else {
            throw ModelError(code: .invalidInput, message: "there is no input to encode; give at least one")
        }
        self.init(model, checked: inputs[...], routes: routes, experts: experts, options: options)
    }

    /// Begins with inputs that have been checked; the record names them by their indices in the whole array.
    init(
        _ model: SwitchTransformer,
        checked inputs: ArraySlice<[Int32]>,
        routes: [StackRoutes?] = [],
        experts: any ExpertExecutor,
        options: StepOptions
    ) {
        self.model = model
        self.lengths = inputs.map(\.count)
        self.step = StepContext(
            options: options,
            experts: experts,
            pool: model.pool,
            sequences: inputs.indices.flatMap { [Int32](repeating: Int32($0), count: inputs[$0].count) },
            given: routes.isEmpty ? nil : GivenRoutes(inputs.indices.map { (routes[$0], inputs[$0].count) })
        )
        self.bias = model.encoderBias?.span(length: self.lengths.max() ?? 1)
        self.hidden = model.embedding(inputs.flatMap { $0 })
        self.keys = Array(repeating: [], count: inputs.count)
        self.values = Array(repeating: [], count: inputs.count)
    }

    /// Whether all work is done.
    public var isFinished: Bool {
        self.block == self.model.encoderBlocks.count && self.crossed == self.model.decoderBlocks.count
    }

    /// Whether the next piece would run without waiting for experts.
    public var isReady: Bool {
        self.out?.work.isReady ?? true
    }

    /// Pieces of work that are left, each of about one block.
    package var piecesLeft: Int {
        (self.model.encoderBlocks.count - self.block) + (self.model.decoderBlocks.count - self.crossed)
    }

    /// Does one piece of work: waits for the experts in flight, then advances by one block.
    ///
    /// - Parameter record: Counts what happens to the tokens.
    /// - Throws: What the expert executor throws, and `ModelError` when its outputs are malformed.
    public func advance(record: inout RoutingRecord) throws {
        if let (sublayer, work) = self.out {
            self.out = nil
            self.blockEnded(try sublayer.finish(work, step: self.step, record: &record), record: &record)
        }
        if self.block < self.model.encoderBlocks.count {
            self.beginBlock(record: &record)
        } else if self.crossed < self.model.decoderBlocks.count {
            self.computeCross()
        }
    }

    /// Cancels the run.
    public func cancel() {
        self.out?.work.cancel()
    }

    /// The encoded sequences, in the order of the inputs.
    ///
    /// - Returns: The sequences; the run must be finished.
    public func result() -> [EncodedSequence] {
        precondition(self.isFinished, "the run has \(self.piecesLeft) pieces left")
        return self.hidden.cut(into: self.lengths).enumerated()
            .map { index, rows in
                EncodedSequence(
                    hidden: rows,
                    headCount: self.model.configuration.headCount,
                    crossKeys: self.keys[index],
                    crossValues: self.values[index]
                )
            }
    }

    private func beginBlock(record: inout RoutingRecord) {
        let block = self.model.encoderBlocks[self.block]
        if self.step.options.collectHiddenStates {
            record.append(hiddenState: self.hidden, stack: .encoder)
        }
        let attended = block.attention(
            block.attentionNorm(self.hidden, pool: self.model.pool),
            lengths: self.lengths,
            bias: self.bias,
            pool: self.model.pool
        )
        let progress = block.feedForward.begin(self.hidden, attended: attended, step: self.step, record: &record)
        switch progress {
        case .done(let hidden):
            self.blockEnded(hidden, record: &record)
        case .out(let work, let sublayer):
            self.out = (sublayer, work)
        }
    }

    private func blockEnded(_ hidden: FloatMatrix, record: inout RoutingRecord) {
        self.block += 1
        self.hidden = hidden
        guard self.block == self.model.encoderBlocks.count else {
            return
        }
        self.hidden = self.model.encoderNorm(hidden, pool: self.model.pool)
        if self.step.options.collectHiddenStates {
            record.append(hiddenState: self.hidden, stack: .encoder)
        }
    }

    /// Computes the keys and values of one decoder block's cross-attention.
    private func computeCross() {
        guard let weights = self.model.decoderBlocks[self.crossed].cross?.attention.weights else {
            preconditionFailure("a model with an encoder has a block that does not attend to it")
        }
        let allKeys = FloatMatrix(uninitializedRows: self.hidden.rows, columns: weights.key.outputs)
        let allValues = FloatMatrix(uninitializedRows: self.hidden.rows, columns: weights.value.outputs)
        self.model.pool.run(
            Product(weights.key, self.hidden, into: allKeys),
            Product(weights.value, self.hidden, into: allValues)
        )
        let heads = self.model.configuration.headCount
        let width = allKeys.columns / heads
        let type = self.model.cacheType
        let keys = self.lengths.map { TypedRows(uninitializedRows: heads * $0, columns: width, type: type) }
        let values = self.lengths.map { TypedRows(uninitializedRows: heads * $0, columns: width, type: type) }
        let starts = self.lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
        self.model.pool.run(2 * self.lengths.count) { range in
            for item in range {
                let index = item / 2
                let (source, target) = item % 2 == 0 ? (allKeys, keys[index]) : (allValues, values[index])
                source.separateHeads(heads, rows: starts[index]..<starts[index + 1], into: target)
            }
        }
        for index in self.lengths.indices {
            self.keys[index].append(keys[index])
            self.values[index].append(values[index])
        }
        self.crossed += 1
    }
}
