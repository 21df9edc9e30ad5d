// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes

// Several inputs in one call of Encode or Score: each is read and answered as in a call of its own, all are admitted
// together, and they share the steps of the engine.

/// What the inputs of one call have come to.
private struct InputTotals {
    var tokens = 0
    var answerBytes = 0
}

extension RequestReader {
    /// Reads a request to encode several inputs.
    ///
    /// - Parameters:
    ///   - request: The message, whose `inputs` are not empty.
    ///   - deadline: When the client stops waiting.
    /// - Returns: Work for the engine, one for each input.
    /// - Throws: ``RPCError`` naming the field that is wrong, and the input that it belongs to.
    func encodeAll(_ request: EncodeRequest, deadline: ContinuousClock.Instant?) throws(RPCError) -> [EngineRequest] {
        try self.refuse(
            ["input": request.input != nil, "encoder_routes": request.encoderRoutes != nil],
            beside: request.inputs.count
        )
        // What holds for all inputs is no single input's fault.
        _ = try self.dropPolicy(request.dropPolicy)
        var single = request
        single.inputs = []
        let isMean = request.pooling == .mean
        return try self.each(request.inputs, isMean: isMean) { input throws(RPCError) in
            single.input = input.input
            single.encoderRoutes = input.encoderRoutes
            return try self.encode(single, deadline: deadline)
        }
    }

    /// Reads a request to score several inputs.
    ///
    /// - Parameters:
    ///   - request: The message, whose `inputs` are not empty.
    ///   - deadline: When the client stops waiting.
    /// - Returns: Work for the engine, one for each input.
    /// - Throws: ``RPCError`` naming the field that is wrong, and the input that it belongs to.
    func scoreAll(_ request: ScoreRequest, deadline: ContinuousClock.Instant?) throws(RPCError) -> [EngineRequest] {
        try self.requireDecoder()
        try self.refuse(
            [
                "input": request.input != nil, "target": request.target != nil,
                "encoder_routes": request.encoderRoutes != nil, "decoder_routes": request.decoderRoutes != nil,
            ],
            beside: request.inputs.count
        )
        _ = try self.dropPolicy(request.dropPolicy)
        try Self.check("top_logprobs", Int(request.topLogprobs), within: 0...self.limits.maxTopLogprobs)
        var single = request
        single.inputs = []
        return try self.each(request.inputs, isMean: false) { input throws(RPCError) in
            single.input = input.input
            single.target = input.target
            single.encoderRoutes = input.encoderRoutes
            single.decoderRoutes = input.decoderRoutes
            return try self.score(single, deadline: deadline)
        }
    }

    /// Refuses fields of a single input beside several, and more inputs than the limit allows.
    private func refuse(_ fields: KeyValuePairs<String, Bool>, beside count: Int) throws(RPCError) {
        if let (field, _) = fields.first(where: \.value) {
            throw RPCError(
                .invalidArgument,
                "\(field) is set beside inputs; leave it out, and give each of the inputs its own"
            )
        }
        guard count <= self.limits.maxInputs else {
            throw RPCError(
                .resourceExhausted,
                "inputs has \(count) entries; the limit is \(self.limits.maxInputs); send the others in another call"
            )
        }
    }

    /// Reads each of several inputs, and stops at the first that is wrong or brings the call over a limit.
    private func each<Input>(
        _ inputs: [Input],
        isMean: Bool,
        read: (Input) throws(RPCError) -> EngineRequest
    ) throws(RPCError) -> [EngineRequest] {
        var requests: [EngineRequest] = []
        var totals = InputTotals()
        for (index, input) in inputs.enumerated() {
            do throws(RPCError) {
                let request = try read(input)
                try self.count(request, isMean: isMean, in: &totals)
                requests.append(request)
            } catch {
                throw error.of(input: index)
            }
        }
        return requests
    }

    private func count(_ request: EngineRequest, isMean: Bool, in totals: inout InputTotals) throws(RPCError) {
        totals.tokens += request.input.count + request.targetCount
        guard totals.tokens <= self.limits.maxTokensOfInputs else {
            throw RPCError(
                .resourceExhausted,
                "it brings the tokens of the call's inputs to \(totals.tokens); the limit is "
                    + "\(self.limits.maxTokensOfInputs); send it and what follows in another call"
            )
        }
        totals.answerBytes += self.answerBytes(to: request, isMean: isMean)
        guard totals.answerBytes <= self.limits.maxAnswerBytes else {
            throw RPCError(
                .resourceExhausted,
                "it brings the call's answers to \(totals.answerBytes) bytes; the limit is \(self.limits.maxAnswerBytes); "
                    + "send it and what follows in another call, or ask for less with each"
            )
        }
    }

    /// The most bytes that the answer to one of several inputs takes, nearly.
    private func answerBytes(to request: EngineRequest, isMean: Bool) -> Int {
        let (input, target) = (request.input.count, request.targetCount)
        let sparse = self.model.sparseLayers
        // Drops and losses by layer, and what holds the fields together.
        var bytes = 256 + sparse.count * 128
        switch request.work {
        case .generate:
            break
        case .encode:
            bytes += (isMean ? 1 : input) * self.model.modelWidth * MemoryLayout<Float>.size + 5 * input
        case .score(_, let topLogprobs):
            bytes += target * 16 * (1 + topLogprobs)
            bytes += 8 * target * (request.distributions?.tokens ?? 0)
            if request.returnsLogits { bytes += target * self.model.vocabularySize * MemoryLayout<Float>.size }
        }
        if request.routing.returnsRoutes {
            let decoded = target + (self.isDecoderOnly ? input : 0)
            bytes += 7 * sparse.reduce(0) { $0 + ($1.stack == .encoder ? input : decoded) }
        }
        return bytes
    }
}

extension RequestHandler {
    /// Encodes several inputs.
    ///
    /// - Parameters:
    ///   - request: The message, whose `inputs` are not empty.
    ///   - call: What comes with the message.
    /// - Returns: One result for each input.
    /// - Throws: ``RPCError``.
    func encodeAll(_ request: EncodeRequest, _ call: Call) async throws -> [EncodeResult] {
        try await self.runAll(call, textBytes: request.textBytes) { reader throws(RPCError) in
            try reader.encodeAll(request, deadline: call.deadline)
        } answer: { work, result throws(RPCError) in
            EncodeResult(try self.response(to: request, result, input: work.input))
        } failure: {
            EncodeResult(status: $0)
        }
    }

    /// Scores several inputs.
    ///
    /// - Parameters:
    ///   - request: The message, whose `inputs` are not empty.
    ///   - call: What comes with the message.
    /// - Returns: One result for each input.
    /// - Throws: ``RPCError``.
    func scoreAll(_ request: ScoreRequest, _ call: Call) async throws -> [ScoreResult] {
        try await self.runAll(call, textBytes: request.textBytes) { reader throws(RPCError) in
            try reader.scoreAll(request, deadline: call.deadline)
        } answer: { _, result throws(RPCError) in
            ScoreResult(try self.response(to: request, result))
        } failure: {
            ScoreResult(status: $0)
        }
    }

    /// Runs all inputs of a call to their ends; cancelling the task cancels those that are left.
    private func runAll<Result>(
        _ call: Call,
        textBytes: Int,
        reading read: (RequestReader) throws(RPCError) -> [EngineRequest],
        answer: (EngineRequest, EngineResult) throws(RPCError) -> Result,
        failure: (InputStatus) -> Result
    ) async throws -> [Result] {
        // Refuse before any work is done for a call that there is no room for.
        try self.engine.requirePlace(for: call.caller)
        var requests = try await self.texts.take(textBytes) { () throws(RPCError) in try read(self.reader) }
        for index in requests.indices {
            requests[index].trace = call.trace
            requests[index].caller = call.caller
        }
        let tickets = try self.engine.submit(requests)
        defer {
            // Those that have ended are not there any more.
            for ticket in tickets { self.engine.cancel(ticket.id) }
        }
        var results: [Result] = []
        var firstError: RPCError?
        var hasAnswer = false
        for (index, ticket) in tickets.enumerated() {
            switch await Self.end(of: ticket) {
            case .finished(var result):
                result.usage.fingerprint = self.receipts.fingerprint
                results.append(try answer(requests[index], result))
                hasAnswer = true
            case .failed(let error):
                results.append(failure(InputStatus(code: UInt32(error.code.rawValue), message: error.message)))
                firstError = firstError ?? error.of(input: index)
            case .token, nil:
                throw RPCError(.cancelled, "the call was cancelled before the request was done")
            }
        }
        if !hasAnswer, let firstError { throw firstError }
        return results
    }

    /// The last event of a request; nil if there was none.
    private static func end(of ticket: EngineTicket) async -> EngineEvent? {
        var last: EngineEvent?
        for await event in ticket.events { last = event }
        return last
    }
}

extension EngineRequest {
    /// Tokens of a score's target; none otherwise.
    fileprivate var targetCount: Int {
        guard case .score(let target, _) = self.work else { return 0 }
        return target.count
    }
}

extension RPCError {
    /// The same error, of one of several inputs.
    fileprivate func of(input index: Int) -> RPCError {
        var error = self
        error.message = "inputs[\(index)]: \(self.message)"
        return error
    }
}

extension EncodeResult {
    /// The answer to a single input as one of several.
    fileprivate init(_ response: EncodeResponse) {
        self.init(
            hiddenStates: response.hiddenStates,
            tokenIDs: response.tokenIDs,
            usage: response.usage,
            encoderRoutes: response.encoderRoutes
        )
    }
}

extension ScoreResult {
    /// The answer to a single input as one of several.
    fileprivate init(_ response: ScoreResponse) {
        self.init(
            logprobs: response.logprobs,
            totalLogprob: response.totalLogprob,
            loss: response.loss,
            usage: response.usage,
            encoderRoutes: response.encoderRoutes,
            decoderRoutes: response.decoderRoutes,
            routerLosses: response.routerLosses,
            logits: response.logits,
            distributions: response.distributions
        )
    }
}
