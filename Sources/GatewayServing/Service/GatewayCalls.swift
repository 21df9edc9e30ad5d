// SPDX-License-Identifier: Apache-2.0

public import RPCCore
public import SwitchyardProtos
public import Telemetry

/// A listener beside the one of gRPC that shares a gateway's life.
public protocol GatewayListener: Sendable {
    /// Listens and answers until it has drained, or until the task is cancelled.
    ///
    /// - Throws: What prevents it from listening.
    func run() async throws

    /// Takes no new connections and lets requests finish; then ``run()`` returns.
    func beginDraining()

    /// Adds the listener's counts and current state to the gateway's metrics.
    ///
    /// - Parameter snapshot: Where the values go.
    func collect(into snapshot: inout MetricSnapshot)
}

/// The calls of a gateway's gRPC service, for listeners of other protocols: the same checks, queue and answers.
///
/// Cancelling the task of a call cancels the request.
public struct GatewayCalls: Sendable {
    let service: GatewayService
    /// The checkpoint of all calls; nil gives each call one.
    var lease: ModelLease?
    private var serving: ModelLane { self.lease?.lane ?? self.service.lanes.serving }
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

    /// Describes the served model and its limits, but for the experts that hosts serve.
    public var model: ModelDescription { self.serving.description }

    /// Describes the served model with the experts that hosts serve at the moment; it takes longer than ``model``.
    public var currentModel: ModelDescription { self.serving.currentDescription }

    /// The models that requests may name: the served one, and another one that a rollout gives requests.
    public var models: [ModelDescription] { self.service.lanes.named }

    /// The calls of one checkpoint, which stays loaded as long as these calls are kept.
    ///
    /// - Parameters:
    ///   - name: The model that a request names, as `NAME` or as `NAME@FINGERPRINT`; nil leaves it to the shares of a rollout, as the
    ///     gateway's setting `model-name` does.
    ///   - bytes: The request, whose bytes decide while a rollout divides requests.
    /// - Returns: The calls; nil if no checkpoint of that name takes requests.
    public func chosen(_ name: String?, by bytes: [UInt8]) -> GatewayCalls? {
        guard let lease = self.service.lanes.lease(named: name, by: bytes) else { return nil }
        return GatewayCalls(service: self.service, lease: lease)
    }

    /// Answers a request with the checkpoint of these calls, or with the one that it is given.
    private func checked<Request: ProtoMessage, Answer>(
        _ request: Request,
        _ body: (ModelLane) async throws -> Answer
    ) async throws -> Answer {
        guard let lease else { return try await self.service.checked(request, body) }
        defer { withExtendedLifetime(lease) {} }
        return try await self.service.checked(on: lease.lane, body)
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
    /// - Throws: `RPCError`, as over gRPC, and what `onToken` throws, which cancels the request.
    public func generate(
        _ request: GenerateRequest,
        _ context: Context,
        onToken: ((GeneratedToken) async throws -> Void)? = nil
    ) async throws -> GenerateResponse {
        try await self.checked(request) { lane in
            guard let onToken else { return try await lane.handler.generate(request, context.call) }
            return try await lane.handler.generate(request, context.call) { token in
                try lane.checkWeights()
                try await onToken(token)
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
        try await self.checked(request) { try await $0.handler.encode(request, context.call) }
    }

    /// Scores a target.
    ///
    /// - Parameters:
    ///   - request: The input and the target, or several of both.
    ///   - context: What comes with it.
    /// - Returns: The target's log-probabilities.
    /// - Throws: `RPCError`, as over gRPC.
    public func score(_ request: ScoreRequest, _ context: Context) async throws -> ScoreResponse {
        try await self.checked(request) { try await $0.handler.score(request, context.call) }
    }

    /// Answers a request of the Open Inference Protocol.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - context: What comes with it.
    /// - Returns: The answer, whose elements are bytes.
    /// - Throws: `RPCError`, as over gRPC.
    public func infer(_ request: ModelInferRequest, _ context: Context) async throws -> ModelInferResponse {
        try await self.service.checked(request) { lane in
            try await GatewayService.infer(request, context.call, lane, isRaw: true)
        }
    }

    /// Cuts a text into tokens, without the end token that the tokenizer adds.
    ///
    /// - Parameter text: The text.
    /// - Returns: The tokens.
    /// - Throws: `RPCError` for a text over a limit, and for characters without a token.
    public func tokens(of text: String) async throws -> [UInt32] {
        let handler = self.serving.handler
        return try await handler.texts.take(text.utf8.count) { () throws(RPCError) in
            try handler.reader.tokens(of: text)
        }
    }

    /// The texts of tokens.
    public var tokens: TokenWords { TokenWords(tokenizer: self.serving.handler.reader.tokenizer) }
}

extension GatewayCalls.Context {
    fileprivate var call: RequestHandler.Call { .init(deadline: self.deadline, trace: self.trace, caller: self.caller) }
}
