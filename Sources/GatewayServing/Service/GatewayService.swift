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
    let handler: RequestHandler
    let gate: ServingGate
    let weights: WeightWatch
    let model: ModelDescription
    let cluster: ClusterReporter
    let logger: Logger

    /// Two texts at their limit and as much again for lists, or ids of at most five bytes.
    private var maxGenerateBytes: Int {
        let limits = self.handler.reader.limits
        return 4 * limits.maxTextBytes + 5 * limits.maxInputTokens
    }
    /// A request to describe something has no fields yet.
    private static let maxDescribeBytes = 1 << 10

    /// The server's handlers.
    var methods: [ServiceMethod] {
        [
            .unary(.generate) { message, context in
                try await self.answer(GenerateRequest.self, message, context) {
                    try await self.handler.generate($0, $1)
                }
            }
            .requests(upTo: self.maxGenerateBytes),
            .serverStreaming(.generateStream) { message, context, writer in
                try await self.generateStream(message, context, writer)
            }
            .requests(upTo: self.maxGenerateBytes),
            .unary(.encode) { message, context in
                try await self.answer(EncodeRequest.self, message, context) { try await self.handler.encode($0, $1) }
            },
            .unary(.score) { message, context in
                try await self.answer(ScoreRequest.self, message, context) { try await self.handler.score($0, $1) }
            },
            .unary(.describeModel) { message, _ in
                _ = try DescribeModelRequest(reading: message)
                var description = self.model
                description.sparseLayers = self.cluster.servedExperts
                return Payload(bytes: description.serialized())
            }
            .requests(upTo: Self.maxDescribeBytes),
            .unary(.describeCluster) { message, _ in
                _ = try DescribeClusterRequest(reading: message)
                return Payload(bytes: self.cluster.description.serialized())
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
        _ body: (Request, RequestHandler.Call) async throws -> Response
    ) async throws -> Payload {
        try await self.traced(context) { trace in
            let request = try Request(reading: message)
            try self.checkWeights()
            try self.gate.check()
            let response = try await body(request, .init(context, trace))
            try self.checkWeights()
            return Payload(bytes: response.serialized())
        }
    }

    /// Refuses to give out what may have been computed with other weights than the fingerprint's.
    func checkWeights() throws(RPCError) {
        if let failure = self.weights.failure { throw RPCError(.unavailable, "the gateway stops, because \(failure)") }
    }

    private func generateStream(
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ writer: ResponseWriter
    ) async throws {
        try await self.traced(context) { trace in
            let request = try GenerateRequest(reading: message)
            try self.checkWeights()
            try self.gate.check()
            let call = RequestHandler.Call(context, trace)
            let response = try await self.handler.generate(request, call) { token in
                try self.checkWeights()
                try await writer.write(Payload(bytes: GenerateEvent(event: .token(token)).serialized()))
            }
            try self.checkWeights()
            try await writer.write(Payload(bytes: GenerateEvent(event: .response(response)).serialized()))
        }
    }
}

extension RequestHandler.Call {
    fileprivate init(_ context: ServerContext, _ trace: TraceContext?) {
        self.init(deadline: context.deadline, trace: trace, caller: context.callerName)
    }
}
