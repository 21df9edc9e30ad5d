// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import TensorKernels

/// The pass that a model makes over inputs before the first token of an answer is chosen, a piece of work at a time: the
/// encoder's, or a prompt's through the decoder.
///
/// Between two pieces the caller may do something else while the experts compute. The result does not depend on the timing
/// of the pieces. A pass belongs to one thread at a time.
public protocol InputPass: AnyObject {
    /// Whether all work is done.
    var isFinished: Bool { get }

    /// Whether the next piece would run without waiting for experts.
    var isReady: Bool { get }

    /// Does one piece of work: waits for the experts in flight, then advances by one block.
    ///
    /// - Parameter record: Counts what happens to the tokens.
    /// - Throws: What the expert executor throws, and `ModelError` when its outputs are malformed.
    func advance(record: inout RoutingRecord) throws

    /// Cancels the pass.
    func cancel()

    /// The inputs with what the pass made of them, in their order; the pass must be finished.
    var prepared: [PreparedInput] { get }
}

/// What a model makes of an input before the first token of an answer is chosen.
public enum PreparedInput {
    /// An encoder's output, which the decoder attends to.
    case encoded(EncodedSequence)
    /// A prompt that the decoder continues.
    case prefilled(PrefilledSequence)

    /// The final hidden states of the input's tokens, `[tokens, d_model]`.
    public var hidden: FloatMatrix {
        switch self {
        case .encoded(let sequence): sequence.hidden
        case .prefilled(let sequence): sequence.hidden
        }
    }

    /// A cache for a row that goes on from the input; each call gives one of its own.
    public func makeCache() -> DecoderCache {
        switch self {
        case .encoded(let sequence): DecoderCache(sequence)
        case .prefilled(let sequence): sequence.cache.fork()
        }
    }
}

extension EncoderRun: InputPass {
    /// The encoded sequences; the run must be finished.
    public var prepared: [PreparedInput] { self.result().map { .encoded($0) } }
}

extension SwitchTransformer {
    /// Begins the pass over inputs that this model makes before it decodes.
    ///
    /// - Parameters:
    ///   - inputs: Token ids of each input; at least one each where there is an encoder.
    ///   - routes: For each input where its tokens go, nil where the routers choose; empty where they always do.
    ///   - experts: Where the experts are.
    ///   - options: How to run; `logits` and `microBatches` are ignored.
    /// - Returns: The pass.
    /// - Throws: `ModelError` for no inputs, empty ones and unknown ids.
    public func inputPass(
        _ inputs: [[Int32]],
        routes: [StackRoutes?] = [],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions()
    ) throws -> any InputPass {
        if self.configuration.design.isDecoderOnly {
            return try PrefillRun(self, inputs: inputs, routes: routes, experts: experts, options: options)
        }
        return try EncoderRun(self, inputs: inputs, routes: routes, experts: experts, options: options)
    }
}
