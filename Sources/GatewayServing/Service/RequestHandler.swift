// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Telemetry

/// Answers a message with a message: reads the request, runs it in the engine, and assembles the answer.
///
/// The gateway's methods and ``LocalGateway`` share it, so that a request means the same in both.
struct RequestHandler: Sendable {
    /// The context of a call's message.
    struct Call: Sendable {
        /// When the client stops waiting; nil if it never does.
        var deadline: ContinuousClock.Instant?
        /// The call's trace; nil if it has none.
        var trace: TraceContext?
        /// Who sent it.
        var caller = ""
    }

    let reader: RequestReader
    let engine: InferenceEngine
    let receipts: ReceiptMaker
    let texts = TextTurns()

    /// Generates text.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - call: What comes with the message.
    ///   - onToken: Takes each token as it is chosen; nil if only the whole answer is needed. The engine continues
    ///     while it is busy: at most `max_new_tokens` tokens of each sequence wait.
    /// - Returns: The whole answer.
    /// - Throws: ``RPCError``, and what `onToken` throws, which cancels the request.
    func generate(
        _ request: GenerateRequest,
        _ call: Call,
        onToken: ((GeneratedToken) async throws -> Void)? = nil
    ) async throws -> GenerateResponse {
        let withLogprobs = (request.parameters?.topLogprobs ?? 0) > 0
        var seed: UInt64?
        var asked: EngineRequest?
        let expertType = request.returnReceipt ? try self.receipts.expertType() : nil
        let (result, _) = try await self.run(call, textBytes: request.textBytes) { reader throws(RPCError) in
            var work = try reader.generate(request, deadline: call.deadline)
            work.streamsTokens = onToken != nil
            if case .generate(let parameters, _) = work.work, parameters.sampling { seed = parameters.seed }
            asked = work
            return work
        } onToken: {
            try await onToken?(GeneratedToken($0, withLogprobs: withLogprobs))
        }
        guard case .generations(let generations) = result.output else { throw Self.wrongAnswer("generated text") }
        var response = GenerateResponse(generations, usage: result.usage, withLogprobs: withLogprobs)
        response.seed = seed
        if request.returnRoutes {
            response.encoderRoutes = result.routing.encoder.map { Routes($0, stack: .encoder) }
        }
        for (index, routes) in result.routing.decoders.enumerated() where response.generations.indices.contains(index) {
            response.generations[index].decoderRoutes = Routes(routes, stack: .decoder)
        }
        if request.returnReceipt, let asked {
            response.receipt = try self.receipts.receipt(
                of: asked,
                result,
                generations: response.generations,
                expertType: expertType
            )
        }
        return response
    }

    /// Runs the encoder.
    ///
    /// - Parameters:
    ///   - request: The input, or several, and how to pool.
    ///   - call: What comes with the message.
    /// - Returns: The hidden states.
    /// - Throws: ``RPCError``.
    func encode(_ request: EncodeRequest, _ call: Call) async throws -> EncodeResponse {
        guard request.inputs.isEmpty else {
            return EncodeResponse(results: try await self.encodeAll(request, call))
        }
        let (result, input) = try await self.run(call, textBytes: request.textBytes) { reader throws(RPCError) in
            try reader.encode(request, deadline: call.deadline)
        }
        return try self.response(to: request, result, input: input)
    }

    /// The answer to one input.
    func response(to request: EncodeRequest, _ result: EngineResult, input: [Int32]) throws(RPCError) -> EncodeResponse
    {
        guard case .hidden(let hidden) = result.output else { throw Self.wrongAnswer("hidden states") }
        return EncodeResponse(
            hiddenStates: Tensor(hidden, isMean: request.pooling == .mean),
            tokenIDs: input.map { UInt32(bitPattern: $0) },
            usage: Usage(result.usage),
            encoderRoutes: result.routing.encoder.map { Routes($0, stack: .encoder) }
        )
    }

    /// Scores a target.
    ///
    /// - Parameters:
    ///   - request: The input and the target, or several of both.
    ///   - call: What comes with the message.
    /// - Returns: One log-probability for each token of the target.
    /// - Throws: ``RPCError``.
    func score(_ request: ScoreRequest, _ call: Call) async throws -> ScoreResponse {
        guard request.inputs.isEmpty else {
            return ScoreResponse(results: try await self.scoreAll(request, call))
        }
        let (result, _) = try await self.run(call, textBytes: request.textBytes) { reader throws(RPCError) in
            try reader.score(request, deadline: call.deadline)
        }
        return try self.response(to: request, result)
    }

    /// The answer to one input and its target.
    func response(to request: ScoreRequest, _ result: EngineResult) throws(RPCError) -> ScoreResponse {
        guard case .scores(let scores) = result.output else { throw Self.wrongAnswer("scores") }
        var response = ScoreResponse(scores, usage: result.usage)
        response.encoderRoutes = result.routing.encoder.map { Routes($0, stack: .encoder) }
        response.decoderRoutes = result.routing.decoders.first.map { Routes($0, stack: .decoder) }
        if request.returnRouterLosses {
            let model = self.reader.model
            let steps: [SwitchyardTypes.Stack: Int] = [
                .encoder: model.encoderSparseStep, .decoder: model.decoderSparseStep,
            ]
            response.routerLosses = RouterLossesMessage(
                SwitchModel.RouterLosses(result.routing.statistics, sparseSteps: steps)
            )
        }
        response.distributions = result.distributions.map { Distributions($0) }
        response.logits = result.logits.map { Tensor($0, isMean: false) }
        return response
    }

    /// Runs a request to its end; cancelling the task cancels the request.
    private func run(
        _ call: Call,
        textBytes: Int,
        reading read: (RequestReader) throws(RPCError) -> EngineRequest,
        onToken: (StreamedToken) async throws -> Void = { _ in }
    ) async throws -> (result: EngineResult, input: [Int32]) {
        // Refuse before any work is done for a request that there is no room for.
        try self.engine.requirePlace(for: call.caller)
        var work = try await self.texts.take(textBytes) { () throws(RPCError) in try read(self.reader) }
        work.trace = call.trace
        work.caller = call.caller
        for await event in try self.engine.submit(work).events {
            switch event {
            case .token(let token): try await onToken(token)
            case .finished(var result):
                result.usage.fingerprint = self.receipts.fingerprint
                return (result, work.input)
            case .failed(let error): throw error
            }
        }
        throw RPCError(.cancelled, "the call was cancelled before the request was done")
    }

    private static func wrongAnswer(_ expected: String) -> RPCError {
        RPCError(.internal, "the engine did not answer with \(expected)")
    }
}
