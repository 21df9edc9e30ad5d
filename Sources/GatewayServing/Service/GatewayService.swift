// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchyardProtos
internal import Telemetry

/// The gateway's methods on the wire.
struct GatewayService: Sendable {
    let lanes: ModelLanes
    let gate: ServingGate
    /// Whether other machines may change the checkpoint.
    let takesRemoteRollouts: Bool
    let logger: Logger

    /// Two texts at their limit and as much again for lists, or ids of at most five bytes.
    private var maxGenerateBytes: Int {
        let limits = self.lanes.serving.handler.reader.limits
        return 4 * limits.maxTextBytes + 5 * limits.maxInputTokens
    }
    /// A request to describe something has no fields yet.
    private static let maxDescribeBytes = 1 << 10

    /// The server's handlers.
    var methods: [ServiceMethod] {
        [
            .unary(.generate) { message, context in
                try await self.answer(GenerateRequest.self, message, context) {
                    try await $0.handler.generate($1, $2)
                }
            }
            .requests(upTo: self.maxGenerateBytes),
            .serverStreaming(.generateStream) { message, context, writer in
                try await self.generateStream(message, context, writer)
            }
            .requests(upTo: self.maxGenerateBytes),
            .unary(.encode) { message, context in
                try await self.answer(EncodeRequest.self, message, context) { try await $0.handler.encode($1, $2) }
            },
            .unary(.score) { message, context in
                try await self.answer(ScoreRequest.self, message, context) { try await $0.handler.score($1, $2) }
            },
            .unary(.describeModel) { message, _ in
                _ = try DescribeModelRequest(reading: message)
                return Payload(bytes: self.lanes.serving.currentDescription.serialized())
            }
            .requests(upTo: Self.maxDescribeBytes),
            .unary(.describeCluster) { message, _ in
                _ = try DescribeClusterRequest(reading: message)
                return Payload(bytes: self.lanes.serving.reporter.description.serialized())
            }
            .requests(upTo: Self.maxDescribeBytes),
            .unary(.rollout) { message, context in
                let request = try RolloutRequest(reading: message)
                guard request.step == .unspecified || self.takesRemoteRollouts || context.isFromThisMachine else {
                    throw RPCError(
                        .permissionDenied,
                        "rollouts are taken from this machine alone; run switchyard rollout beside the gateway, or start it with "
                            + "--remote-rollouts"
                    )
                }
                return Payload(bytes: try await self.lanes.step(request).serialized())
            }
            .requests(upTo: Self.maxDescribeBytes),
        ]
    }

    /// The methods whose calls wait for a place in the engine.
    private static let queued: Set<Method> = [.generate, .generateStream, .encode, .score, .modelInfer]

    /// Refuses a call that the engine has no room for, when no more than its headers has come.
    ///
    /// - Parameters:
    ///   - context: The call.
    ///   - engine: The engine.
    /// - Returns: The error that refuses the call; nil if there is room.
    static func refusal(of context: ServerContext, engine: InferenceEngine) -> RPCError? {
        guard Self.queued.contains(context.method) else { return nil }
        do throws(RPCError) {
            try engine.requirePlace(for: context.callerName)
            return nil
        } catch {
            return error
        }
    }

    /// Answers a call with one message each way.
    func answer<Request: ProtoMessage, Response: ProtoMessage>(
        _: Request.Type,
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ body: (ModelLane, Request, RequestHandler.Call) async throws -> Response
    ) async throws -> Payload {
        try await self.traced(context) { trace in
            let request = try Request(reading: message)
            let response = try await self.checked(request) { try await body($0, request, .init(context, trace)) }
            return Payload(bytes: response.serialized())
        }
    }

    /// Answers a request with the checkpoint that it is given, if requests are taken.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - body: Gets the checkpoint's lane.
    /// - Returns: What the body returns.
    /// - Throws: ``RPCError``, and what the body throws.
    func checked<Request: ProtoMessage, Answer>(
        _ request: Request,
        _ body: (ModelLane) async throws -> Answer
    ) async throws -> Answer {
        try await self.lanes.with(request) { try await self.checked(on: $0, body) }
    }

    /// Answers a request with a checkpoint, if requests are taken.
    ///
    /// - Parameters:
    ///   - lane: The checkpoint's lane, which stays loaded.
    ///   - body: Gets the lane.
    /// - Returns: What the body returns.
    /// - Throws: ``RPCError``, and what the body throws.
    func checked<Answer>(on lane: ModelLane, _ body: (ModelLane) async throws -> Answer) async throws -> Answer {
        try lane.checkWeights()
        try self.gate.check()
        let answer = try await body(lane)
        try lane.checkWeights()
        return answer
    }

    private func generateStream(
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ writer: ResponseWriter
    ) async throws {
        try await self.traced(context) { trace in
            let request = try GenerateRequest(reading: message)
            let call = RequestHandler.Call(context, trace)
            let response = try await self.checked(request) { lane in
                try await lane.handler.generate(request, call) { token in
                    try lane.checkWeights()
                    try await writer.write(Payload(bytes: GenerateEvent(event: .token(token)).serialized()))
                }
            }
            try await writer.write(Payload(bytes: GenerateEvent(event: .response(response)).serialized()))
        }
    }
}

extension ModelLane {
    /// Refuses to give out what may have been computed with other weights than the fingerprint's.
    func checkWeights() throws(RPCError) {
        if let failure = self.weights.failure { throw RPCError(.unavailable, "the gateway stops, because \(failure)") }
    }
}

extension ServerContext {
    /// Whether the caller is on this machine: a loopback address, or a socket in the file system.
    fileprivate var isFromThisMachine: Bool {
        let address = self.peer
        return address.hasPrefix("127.") || address.hasPrefix("[::1]:") || address.hasPrefix("::1")
            || address.hasPrefix("unix")
    }
}

extension RequestHandler.Call {
    init(_ context: ServerContext, _ trace: TraceContext?) {
        self.init(deadline: context.deadline, trace: trace, caller: context.callerName)
    }
}
