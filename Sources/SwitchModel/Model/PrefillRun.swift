// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// A prompt after its pass through the decoder of a model without an encoder.
///
/// Belongs to one thread at a time, as its cache does.
public struct PrefilledSequence {
    /// The keys and values of the prompt's tokens.
    public let cache: DecoderCache

    /// The decoder's output after the final norm, `[tokens, d_model]`.
    public let hidden: FloatMatrix
}

/// Some prompts on their way through the decoder, a block at a time: all their tokens together, so that products have many rows
/// and each host gets the rows of all prompts in one call.
///
/// A token's bits are those that it would have if it came in a step of its own.
public final class PrefillRun: InputPass {
    private let model: SwitchTransformer
    private let rows: [DecoderInput]
    /// Nil where no prompt has a token.
    private var lane: DecoderLane?
    private let options: StepOptions
    /// The prompts' final hidden states, one after another, once all blocks are done.
    private var hidden: FloatMatrix?

    /// Looks up the prompts' embeddings.
    ///
    /// - Parameters:
    ///   - model: A model without an encoder.
    ///   - inputs: Token ids of each prompt, at least one prompt; a prompt may have none.
    ///   - routes: For each prompt where its tokens go, nil where the routers choose; empty where they always do.
    ///   - experts: Where the experts are.
    ///   - options: How to run; `logits` and `microBatches` are ignored.
    /// - Throws: `ModelError` for a model with an encoder, no prompts and unknown ids.
    public init(
        _ model: SwitchTransformer,
        inputs: [[Int32]],
        routes: [StackRoutes?] = [],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions()
    ) throws {
        guard model.configuration.design.isDecoderOnly else {
            throw ModelError(
                code: .unsupported,
                message: "the model has an encoder, which its inputs go through; encode them"
            )
        }
        guard !inputs.isEmpty, routes.isEmpty || routes.count == inputs.count else {
            throw ModelError(
                code: .invalidInput,
                message:
                    "there are \(inputs.count) prompts and \(routes.count) entries of routes; give at least one prompt, and "
                    + "routes for each or none"
            )
        }
        for (index, tokens) in inputs.enumerated() where !tokens.isEmpty {
            try model.requireKnown(tokens, input: index)
            let given = routes.isEmpty ? nil : routes[index]
            try model.requireFitting(given, stack: .decoder, tokens: tokens.count, input: index)
        }
        self.model = model
        self.options = options
        self.rows = inputs.enumerated()
            .map { index, tokens in
                DecoderInput(
                    cache: DecoderCache(model),
                    tokens: tokens,
                    routes: routes.isEmpty || tokens.isEmpty ? nil : routes[index]
                )
            }
        self.lane =
            inputs.allSatisfy(\.isEmpty)
            ? nil : DecoderLane(model, rows: self.rows[...], experts: experts, options: options)
        if self.lane == nil { self.hidden = FloatMatrix(rows: 0, columns: model.configuration.modelWidth) }
    }

    /// Whether all work is done.
    public var isFinished: Bool { self.hidden != nil }

    /// Whether the next piece would run without waiting for experts.
    public var isReady: Bool { self.lane?.isReady ?? true }

    /// Does one piece of work: waits for the experts in flight, then advances by one block.
    ///
    /// - Parameter record: Counts what happens to the tokens.
    /// - Throws: What the expert executor throws, and `ModelError` when its outputs are malformed.
    public func advance(record: inout RoutingRecord) throws {
        guard self.hidden == nil else { return }
        try self.lane?.advance(record: &record)
        guard let lane = self.lane, lane.isFinished else { return }
        for row in self.rows { row.cache.advance(by: row.tokens.count) }
        let hidden = self.model.decoderNorm(lane.hidden, pool: self.model.pool)
        if self.options.collectHiddenStates { record.append(hiddenState: hidden, stack: .decoder) }
        self.hidden = hidden
    }

    /// Cancels the run.
    public func cancel() { self.lane?.cancel() }

    /// The prompts, in the order of the inputs.
    ///
    /// - Returns: The prompts; the run must be finished.
    public func result() -> [PrefilledSequence] {
        guard let hidden else { preconditionFailure("the run is not finished") }
        return zip(self.rows, hidden.cut(into: self.rows.map(\.tokens.count)))
            .map { PrefilledSequence(cache: $0.cache, hidden: $1) }
    }

    /// The prompts; the run must be finished.
    public var prepared: [PreparedInput] { self.result().map { .prefilled($0) } }
}
