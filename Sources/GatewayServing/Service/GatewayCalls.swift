// SPDX-License-Identifier: Apache-2.0

public import RPCCore
public import SwitchyardProtos
public import Telemetry
internal import Tokenization

/// A listener beside the one of gRPC that shares a gateway's life.
public protocol GatewayListener: Sendable {
    /// Listens and answers until it has drained, or until the task is cancelled.
    ///
    /// - Throws: What prevents it from listening.
    func run() async throws

    /// Takes no new connections and lets requests finish; then ``run()`` returns.
    func beginDraining()
}

/// The calls of a gateway's gRPC service, for listeners of other protocols: the same checks, queue and answers.
///
/// Cancelling the task of a call cancels the request.
public struct GatewayCalls: Sendable {
    let service: GatewayService
    private var serving: ModelLane { self.service.lanes.serving }
    private var engine: InferenceEngine { self.serving.engine }

    /// What comes with a call besides its message.
    public struct Context: Sendable {
        /// When the client stops waiting; nil if it never does.
        public var deadline: ContinuousClock.Instant?
        /// The call's trace; nil if it has none.
        public var trace: TraceContext?
        /// Who sent it, for fair turns.
        public var caller: String

        /// Creates the context of a call.
        ///
        /// - Parameters:
        ///   - deadline: When the client stops waiting.
        ///   - trace: The call's trace.
        ///   - caller: Who sent it.
        public init(deadline: ContinuousClock.Instant?, trace: TraceContext?, caller: String) {
            self.deadline = deadline
            self.trace = trace
            self.caller = caller
        }
    }

    /// Describes the served model and its limits.
    public var model: ModelDescription {
        self.serving.model
    }

    /// Describes the cluster as the gateway sees it.
    public var cluster: ClusterDescription { self.serving.reporter.description }

    /// How large requests may be.
    public var limits: RequestLimits { self.serving.handler.reader.limits }

    /// Requests that may wait and run at once.
    public var maxConcurrentRequests: Int {
        let load = self.engine.load
        return load.queueLimit + load.batchSlots
    }

    /// Why calls are not taken at present; nil if they are.
    public var refusal: RPCError? {
        do throws(RPCError) {
            try self.serving.checkWeights()
            try self.service.gate.check()
            return nil
        } catch {
            return error
        }
    }

    /// Refuses a call that there is no room for, before its message is read.
    ///
    /// - Parameter caller: Who sends it.
    /// - Returns: The error that refuses it; nil if there is room.
    public func refusal(of caller: String) -> RPCError? {
        do throws(RPCError) {
            try self.engine.requirePlace(for: caller)
            return nil
        } catch {
            return error
        }
    }

    /// Generates text.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - context: What comes with it.
    ///   - onToken: Takes each token as it is chosen; nil if only the whole answer is needed.
    /// - Returns: The whole answer.
    /// - Throws: `RPCError`, as over gRPC.
    public func generate(
        _ request: GenerateRequest,
        _ context: Context,
        onToken: (@Sendable (GeneratedToken) -> Void)? = nil
    ) async throws -> GenerateResponse {
        try await self.service.checked(request) { lane in
            guard let onToken else { return try await lane.handler.generate(request, context.call) }
            return try await lane.handler.generate(request, context.call) { token in
                try lane.checkWeights()
                onToken(token)
            }
        }
    }

    /// Runs the encoder.
    ///
    /// - Parameters:
    ///   - request: The input, or several.
    ///   - context: What comes with it.
    /// - Returns: The hidden states.
    /// - Throws: `RPCError`, as over gRPC.
    public func encode(_ request: EncodeRequest, _ context: Context) async throws -> EncodeResponse {
        try await self.service.checked(request) { try await $0.handler.encode(request, context.call) }
    }

    /// Scores a target.
    ///
    /// - Parameters:
    ///   - request: The input and the target, or several of both.
    ///   - context: What comes with it.
    /// - Returns: The target's log-probabilities.
    /// - Throws: `RPCError`, as over gRPC.
    public func score(_ request: ScoreRequest, _ context: Context) async throws -> ScoreResponse {
        try await self.service.checked(request) { try await $0.handler.score(request, context.call) }
    }

    // MARK: - Texts

    /// The text that each token of a sequence adds; joined it is the sequence's text, as far as no stop string cut it.
    ///
    /// - Parameter ids: The sequence.
    /// - Returns: One text for each token; empty texts for a model without a tokenizer.
    public func texts(of ids: [UInt32]) -> [String] {
        guard var decoder = self.serving.handler.reader.tokenizer?.makeDecoder() else { return ids.map { _ in "" } }
        var texts = ids.map { decoder.append(Int32(clamping: $0)) }
        if !texts.isEmpty { texts[texts.count - 1] += decoder.finish() }
        return texts
    }

    /// The text of a token in the middle of a sequence.
    ///
    /// - Parameter id: The token.
    /// - Returns: Its text, a space in place of the tokenizer's mark; its number for a model without a tokenizer.
    public func text(of id: UInt32) -> String {
        guard let text = self.serving.handler.reader.tokenizer?.token(Int32(clamping: id)) else { return "\(id)" }
        return text.replacing("\u{2581}", with: " ")
    }

    /// Whether a token is a special one, such as the end of a sequence or a sentinel.
    ///
    /// - Parameter id: The token.
    /// - Returns: Whether a text without special tokens would leave it out.
    public func isSpecial(_ id: UInt32) -> Bool {
        guard let tokenizer = self.serving.handler.reader.tokenizer else { return false }
        let ids = [Int32(clamping: id)]
        return !tokenizer.decode(ids).isEmpty && tokenizer.decode(ids, skipSpecialTokens: true).isEmpty
    }
}

extension GatewayCalls.Context {
    fileprivate var call: RequestHandler.Call { .init(deadline: self.deadline, trace: self.trace, caller: self.caller) }
}
