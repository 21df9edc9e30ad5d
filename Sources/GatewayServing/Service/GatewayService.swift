// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchyardProtos
internal import Telemetry

/// The gateway's methods on the wire.
struct GatewayService: Sendable {
    let reader: RequestReader
    let engine: InferenceEngine
    let gate: ServingGate
    let model: ModelDescription
    let cluster: ClusterReporter
    let logger: Logger

    /// What the server answers with.
    var methods: [ServiceMethod] {
        [
            .unary(.generate) { message, context in
                try await self.traced(context) { try await self.generate(message, context, $0) }
            },
            .serverStreaming(.generateStream) { message, context, writer in
                try await self.traced(context) { try await self.generateStream(message, context, writer, $0) }
            },
            .unary(.encode) { message, context in
                try await self.traced(context) { try await self.encode(message, context, $0) }
            },
            .unary(.score) { message, context in
                try await self.traced(context) { try await self.score(message, context, $0) }
            },
            .unary(.describeModel) { message, _ in
                _ = try DescribeModelRequest(reading: message)
                var description = self.model
                description.sparseLayers = self.cluster.servedExperts
                return Payload(bytes: description.serialized())
            },
            .unary(.describeCluster) { message, _ in
                _ = try DescribeClusterRequest(reading: message)
                return Payload(bytes: self.cluster.description.serialized())
            },
        ]
    }

    private func generate(
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ trace: TraceContext?
    ) async throws -> Payload {
        let request = try GenerateRequest(reading: message)
        try self.gate.check()
        try self.engine.requirePlace()
        var work = try self.reader.generate(request, deadline: context.deadline)
        work.trace = trace
        let result = try await self.result(of: work)
        return Payload(bytes: Self.response(to: request, result).serialized())
    }

    private func generateStream(
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ writer: ResponseWriter,
        _ trace: TraceContext?
    ) async throws {
        let request = try GenerateRequest(reading: message)
        try self.gate.check()
        try self.engine.requirePlace()
        let withLogprobs = request.wantsLogprobs
        var work = try self.reader.generate(request, deadline: context.deadline)
        work.streamsTokens = true
        work.trace = trace
        let ticket = try self.engine.submit(work)
        // A client that reads slowly suspends this loop, not the engine: at most max_new_tokens events wait.
        for await event in ticket.events {
            switch event {
            case .token(let token):
                let event = GenerateEvent(token, withLogprobs: withLogprobs)
                try await writer.write(Payload(bytes: event.serialized()))
            case .finished(let result):
                let event = GenerateEvent(event: .response(Self.response(to: request, result)))
                try await writer.write(Payload(bytes: event.serialized()))
                return
            case .failed(let error):
                throw error
            }
        }
        throw Self.cancelled
    }

    private func encode(
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ trace: TraceContext?
    ) async throws -> Payload {
        let request = try EncodeRequest(reading: message)
        try self.gate.check()
        try self.engine.requirePlace()
        var work = try self.reader.encode(request, deadline: context.deadline)
        work.trace = trace
        let result = try await self.result(of: work)
        guard case .hidden(let hidden) = result.output else {
            throw RPCError(.internal, "the engine answered with something else than hidden states")
        }
        let response = EncodeResponse(
            hiddenStates: Tensor(hidden, isMean: request.pooling == .mean),
            tokenIDs: work.input.map { UInt32(bitPattern: $0) },
            usage: Usage(result.usage)
        )
        return Payload(bytes: response.serialized())
    }

    private func score(
        _ message: ByteBuffer,
        _ context: ServerContext,
        _ trace: TraceContext?
    ) async throws -> Payload {
        let request = try ScoreRequest(reading: message)
        try self.gate.check()
        try self.engine.requirePlace()
        var work = try self.reader.score(request, deadline: context.deadline)
        work.trace = trace
        let result = try await self.result(of: work)
        guard case .scores(let scores) = result.output else {
            throw RPCError(.internal, "the engine answered with something else than scores")
        }
        return Payload(bytes: ScoreResponse(scores, usage: result.usage).serialized())
    }

    /// Waits for the end of a request.
    ///
    /// A task that is cancelled cancels the request.
    private func result(of request: EngineRequest) async throws(RPCError) -> EngineResult {
        let ticket = try self.engine.submit(request)
        for await event in ticket.events {
            switch event {
            case .token: continue
            case .finished(let result): return result
            case .failed(let error): throw error
            }
        }
        throw Self.cancelled
    }

    private static let cancelled = RPCError(.cancelled, "the call was cancelled before the request was done")

    private static func response(to request: GenerateRequest, _ result: EngineResult) -> GenerateResponse {
        guard case .generations(let generations) = result.output else {
            return GenerateResponse(usage: Usage(result.usage))
        }
        return GenerateResponse(generations, usage: result.usage, withLogprobs: request.wantsLogprobs)
    }
}

extension GenerateRequest {
    fileprivate var wantsLogprobs: Bool { (self.parameters?.topLogprobs ?? 0) > 0 }
}
