// SPDX-License-Identifier: Apache-2.0

public import BatchScheduling
public import RPCCore
public import SwitchModel
internal import SwitchyardTypes
public import Telemetry
public import TensorKernels

/// What the engine is asked to do with one input.
public struct EngineRequest: Sendable {
    /// The kind of work.
    public enum Work: Sendable {
        /// Choose tokens; with stop strings, none of which may be empty.
        case generate(GenerationParameters, stops: [String])
        /// Only run the encoder.
        case encode
        /// Score given tokens, and name this many of the most likely tokens at each position.
        case score(target: [Int32], topLogprobs: Int)
    }

    /// The kinds of work by name.
    enum Kind: String, Sendable, CaseIterable {
        case generate
        case encode
        case score
    }

    /// The encoder's input, or the prompt of a model without an encoder: at least one id, all of them in the vocabulary.
    public var input: [Int32]

    /// The kind of work.
    public var work: Work

    /// How many dropped tokens the request accepts.
    public var dropPolicy: DropPolicy

    /// When the client stops waiting; never if it is missing.
    public var deadline: ContinuousClock.Instant?

    /// Whether each token is sent as it is chosen; the last event holds all of them in any case.
    public var streamsTokens: Bool

    /// What every generated sequence begins with after the start token; not part of the answer.
    public var decoderPrefix: [Int32] = []

    /// The start and end tokens of a generation; the model's own if missing.
    public var vocabulary: GenerationVocabulary?

    /// What it wants of the routers.
    public var routing = RoutingOptions()

    /// Whether a score comes with the scores of the whole vocabulary.
    public var returnsLogits = false

    /// The distributions that a score comes with; none if it is missing.
    var distributions: DistributionOptions?

    /// The request's trace; nil if it has none.
    public var trace: TraceContext?

    /// Who sent it; callers take turns.
    public var caller = ""

    /// How soon it joins, compared with others of the same caller.
    public var priority = CallPriority.normal

    /// How long it may wait for batch slots; as long as its deadline allows if it is missing.
    public var queueTimeout: Duration?

    /// Creates a request.
    ///
    /// - Parameters:
    ///   - input: The encoder's input.
    ///   - work: The kind of work.
    ///   - dropPolicy: How many dropped tokens the request accepts.
    ///   - deadline: When the client stops waiting.
    ///   - streamsTokens: Whether each token is sent as it is chosen.
    public init(
        input: [Int32],
        work: Work,
        dropPolicy: DropPolicy = .allow,
        deadline: ContinuousClock.Instant? = nil,
        streamsTokens: Bool = false
    ) {
        self.input = input
        self.work = work
        self.dropPolicy = dropPolicy
        self.deadline = deadline
        self.streamsTokens = streamsTokens
    }
}

extension EngineRequest {
    /// The tokens that go through the model before the first one is chosen.
    ///
    /// - Parameter isDecoderOnly: Whether the model has no encoder, so that the input is a prompt. Its last token then comes in
    ///   the first step of a generation, and the target of a score follows it.
    /// - Returns: The tokens; none for a prompt of one token that is continued.
    func passTokens(isDecoderOnly: Bool) -> [Int32] {
        guard isDecoderOnly else { return self.input }
        switch self.work {
        case .generate: return Array(self.input.dropLast())
        case .encode: return self.input
        case .score(let target, _): return self.input + target.dropLast()
        }
    }

    /// Where those tokens go; nil where the routers choose.
    func passRoutes(isDecoderOnly: Bool) -> StackRoutes? {
        guard isDecoderOnly else { return self.routing.encoderRoutes }
        guard case .generate = self.work else { return self.routing.decoderRoutes }
        // A generation's first step is the whole prompt.
        let first = self.routing.steps.first?.first.flatMap { $0 }
        return first?.tokenCount == self.input.count ? first?.part(0..<(self.input.count - 1)) : nil
    }
}

extension EngineRequest.Work {
    /// The kind by name.
    var kind: EngineRequest.Kind {
        switch self {
        case .generate: .generate
        case .encode: .encode
        case .score: .score
        }
    }
}

/// A request that the engine has accepted: its name and its events.
public struct EngineTicket: Sendable {
    /// The request's name, for ``InferenceEngine/cancel(_:)``.
    public let id: SequenceID

    /// What happens, in order; ends after ``EngineEvent/finished(_:)`` or ``EngineEvent/failed(_:)``.
    ///
    /// Cancelling the task that reads it cancels the request.
    public let events: AsyncStream<EngineEvent>
}

/// Something that happened to a request.
public enum EngineEvent: Sendable {
    /// One sequence has one more token; only if the request asks for it, and not in a beam search.
    case token(StreamedToken)
    /// The last event of a request that succeeded.
    case finished(EngineResult)
    /// The last event of a request that failed.
    case failed(RPCError)
}

/// One more token of one sequence.
public struct StreamedToken: Sendable, Hashable {
    /// Which of the returned sequences.
    public var sequence: Int
    /// The token's id.
    public var id: Int32
    /// The text that the token adds; empty while it may be the start of a stop string.
    public var text: String
    /// The natural logarithm of its probability.
    public var logprob: Float
    /// The most likely tokens at this position, as many as requested.
    public var topLogprobs: [SwitchModel.TokenLogprob]
}

/// The result of a request.
public struct EngineResult: Sendable {
    /// The answer, by the kind of work.
    public enum Output: Sendable {
        /// The generated sequences, best first.
        case generations([EngineGeneration])
        /// The hidden states of the encoder, or of a prompt, `[tokens, d_model]` float32.
        case hidden(FloatMatrix)
        /// One entry for each token of the target.
        case scores([TokenScore])
    }

    /// The answer.
    public var output: Output

    /// What it cost.
    public var usage: EngineUsage

    /// What the routers did, as far as the request asked.
    public var routing = EngineRouting()

    /// `[target, vocabulary]`, if a score asked for it.
    public var logits: FloatMatrix?

    /// The most likely tokens at each position, if a score asked for them.
    var distributions: TokenDistributions?
}

/// Which distributions a score comes with.
struct DistributionOptions: Sendable, Hashable {
    /// Tokens that are named at each position, at most the vocabulary's.
    var tokens: Int
    /// What scores are divided by first.
    var temperature: Float
}

/// The most likely tokens at each position of a target.
struct TokenDistributions: Sendable, Hashable {
    /// Tokens that are named at each position.
    var tokens: Int
    /// `[positions, tokens]`, ascending at each position.
    var ids: [Int32] = []
    /// `[positions, tokens]`.
    var logprobs: [Float] = []
}

/// One generated sequence.
public struct EngineGeneration: Sendable, Hashable {
    /// The text, special tokens kept; it ends before the first stop string.
    public var text: String

    /// All generated ids, including those of the stop string.
    public var sequence: GeneratedSequence
}

/// How likely one token of a target is.
public struct TokenScore: Sendable, Hashable {
    /// The token's id.
    public var id: Int32
    /// The natural logarithm of its probability.
    public var logprob: Float
    /// The most likely tokens at its position, best first, as many as requested.
    public var topLogprobs: [SwitchModel.TokenLogprob]
}

/// What a request cost.
public struct EngineUsage: Sendable, Hashable {
    /// Ids given to the encoder.
    public var inputTokens = 0
    /// Generated ids, over all sequences; for a score, the target's ids.
    public var outputTokens = 0
    /// Tokens without an expert's output.
    public var dropped: [DroppedTokens] = []
    /// Tokens times sparse layers.
    public var routedTokens = 0
    /// Time from submission to the first step.
    public var queueTime = Duration.zero
    /// Time in the encoder.
    public var encodeTime = Duration.zero
    /// Time from the end of the encoder to the end of the request.
    public var decodeTime = Duration.zero
    /// The fingerprint of the checkpoint that answered.
    public var fingerprint: UInt64 = 0
}
