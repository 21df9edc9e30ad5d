// SPDX-License-Identifier: Apache-2.0

public import RPCCore
public import SwitchyardProtos
public import Telemetry

/// What comes with a request besides its body.
public struct DoorCall: Sendable {
    /// When the client stops waiting; nil if it never does.
    public var deadline: ContinuousClock.Instant?
    /// Who sent it, as the gateway's fair turns name callers.
    public var caller: String
    /// The request's trace; nil if it has none.
    public var trace: TraceContext?

    /// Creates the context of a request.
    ///
    /// - Parameters:
    ///   - deadline: When the client stops waiting.
    ///   - caller: Who sent it.
    ///   - trace: Its trace.
    public init(deadline: ContinuousClock.Instant? = nil, caller: String = "", trace: TraceContext? = nil) {
        self.deadline = deadline
        self.caller = caller
        self.trace = trace
    }
}

/// What tokens are as text, by the tokenizer of the served model.
public protocol TokenTexts: Sendable {
    /// The text that each token of a sequence adds; joined it is the sequence's text, as far as no stop string cut it.
    ///
    /// - Parameter ids: The sequence.
    /// - Returns: One text for each token; empty texts for a model without a tokenizer.
    func texts(of ids: [UInt32]) -> [String]

    /// The text of a token by itself, in the middle of a sequence.
    ///
    /// - Parameter id: The token.
    /// - Returns: Its text; its number for a model without a tokenizer.
    func text(of id: UInt32) -> String

    /// Whether a token is a special one, such as the end of a sequence or a sentinel.
    ///
    /// - Parameter id: The token.
    /// - Returns: Whether it is special.
    func isSpecial(_ id: UInt32) -> Bool
}

/// Tokens that stand for no text.
public struct SpecialTokens: Sendable, Hashable {
    /// The token that the tokenizer adds to a text's end; nil if it adds none.
    public var added: UInt32?
    /// The text of the token that ends a sequence; nil where no token has that meaning.
    public var end: String?
    /// The text of the token that fills places; nil if there is none.
    public var padding: String?

    /// Names tokens.
    ///
    /// - Parameters:
    ///   - added: The token that the tokenizer adds to a text's end.
    ///   - end: The text of the token that ends a sequence.
    ///   - padding: The text of the token that fills places.
    public init(added: UInt32? = nil, end: String? = nil, padding: String? = nil) {
        self.added = added
        self.end = end
        self.padding = padding
    }
}

/// The gateway behind the door: the calls of its gRPC service, and what a token's text is.
///
/// Cancelling the task of a call cancels the request.
public protocol DoorBackend: TokenTexts {
    /// Describes the served model and its limits, but for the experts that hosts serve.
    var model: ModelDescription { get }

    /// Describes the served model with the experts that hosts serve at the moment; it takes longer than ``model``.
    var currentModel: ModelDescription { get }

    /// The models that requests may name: the served one, and another one that a rollout gives requests.
    var models: [ModelDescription] { get }

    /// The gateway with one checkpoint, for all that a request asks of it: the checkpoint stays loaded as long as this is kept.
    ///
    /// - Parameters:
    ///   - name: The model that the request names; nil leaves it to the gateway.
    ///   - body: The request's body, whose bytes decide while a rollout divides requests.
    /// - Returns: The gateway; nil if it has no model of that name.
    func chosen(_ name: String?, by body: [UInt8]) -> (any DoorBackend)?

    /// Describes the cluster as the gateway sees it.
    var cluster: ClusterDescription { get }

    /// Stop strings that a request may have.
    var maxStopStrings: Int { get }

    /// Tokens of a target that is scored, at most.
    var maxTargetTokens: Int { get }

    /// Tokens that stand for no text.
    var specialTokens: SpecialTokens { get }

    /// Requests that may wait and run at once.
    var maxConcurrentRequests: Int { get }

    /// Why requests are not taken at present; nil if they are.
    var refusal: RPCError? { get }

    /// Refuses a request that there is no room for, before its body is read.
    ///
    /// - Parameter caller: Who sends it.
    /// - Returns: The error that refuses it; nil if there is room.
    func refusal(of caller: String) -> RPCError?

    /// Generates text.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - call: What comes with the request.
    ///   - onToken: Takes each token as it is chosen; nil if only the whole answer is needed.
    /// - Returns: The whole answer.
    /// - Throws: `RPCError` as over gRPC, and what `onToken` throws, which cancels the request.
    func generate(
        _ request: GenerateRequest,
        _ call: DoorCall,
        onToken: ((GeneratedToken) async throws -> Void)?
    ) async throws -> GenerateResponse

    /// Runs the encoder.
    ///
    /// - Parameters:
    ///   - request: The input, or several.
    ///   - call: What comes with the request.
    /// - Returns: The hidden states.
    /// - Throws: `RPCError` as over gRPC.
    func encode(_ request: EncodeRequest, _ call: DoorCall) async throws -> EncodeResponse

    /// Scores a target.
    ///
    /// - Parameters:
    ///   - request: The input and the target, or several of both.
    ///   - call: What comes with the request.
    /// - Returns: The target's log-probabilities.
    /// - Throws: `RPCError` as over gRPC.
    func score(_ request: ScoreRequest, _ call: DoorCall) async throws -> ScoreResponse

    /// Cuts a text into tokens, without one that the tokenizer adds to its end.
    ///
    /// - Parameter text: The text.
    /// - Returns: The tokens.
    /// - Throws: `RPCError` for a text that is too long, or that has characters without a token.
    func tokens(of text: String) async throws -> [UInt32]

    /// Answers a request of the Open Inference Protocol.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - call: What comes with it.
    /// - Returns: The answer, whose elements are bytes (`rawOutputContents`).
    /// - Throws: `RPCError` as over gRPC.
    func infer(_ request: ModelInferRequest, _ call: DoorCall) async throws -> ModelInferResponse
}
