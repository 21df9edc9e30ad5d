// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import Tokenization

/// Turns messages into work for the engine, and refuses invalid ones, naming the field, its limit and its value.
struct RequestReader: Sendable {
    let tokenizer: Tokenizer
    let model: ModelConfiguration
    let limits: RequestLimits
    /// Batch slots of the engine, which bound beams and returned sequences.
    let batchSlots: Int

    /// Reads a request to generate.
    ///
    /// - Parameters:
    ///   - request: The message.
    ///   - deadline: When the client stops waiting.
    /// - Returns: Work for the engine.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    func generate(
        _ request: GenerateRequest,
        deadline: ContinuousClock.Instant?
    ) throws(RPCError) -> EngineRequest {
        let message = request.parameters ?? GenerationParametersMessage()
        let parameters = try self.parameters(message)
        try self.checkStops(message.stop, parameters: parameters)
        return EngineRequest(
            input: try self.input(request.input),
            work: .generate(parameters, stops: message.stop),
            dropPolicy: try self.dropPolicy(request.dropPolicy),
            deadline: deadline
        )
    }

    /// Reads a request to encode.
    ///
    /// - Parameters:
    ///   - request: The message.
    ///   - deadline: When the client stops waiting.
    /// - Returns: Work for the engine.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    func encode(_ request: EncodeRequest, deadline: ContinuousClock.Instant?) throws(RPCError) -> EngineRequest {
        EngineRequest(
            input: try self.input(request.input),
            work: .encode,
            dropPolicy: try self.dropPolicy(request.dropPolicy),
            deadline: deadline
        )
    }

    /// Reads a request to score.
    ///
    /// - Parameters:
    ///   - request: The message.
    ///   - deadline: When the client stops waiting.
    /// - Returns: Work for the engine.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    func score(_ request: ScoreRequest, deadline: ContinuousClock.Instant?) throws(RPCError) -> EngineRequest {
        let target = try self.tokens(
            request.target,
            fields: .init(none: "target", text: "target_text", ids: "target_ids"),
            limit: self.limits.maxTargetTokens
        )
        try Self.check("top_logprobs", Int(request.topLogprobs), within: 0...self.limits.maxTopLogprobs)
        return EngineRequest(
            input: try self.input(request.input),
            work: .score(target: target, topLogprobs: Int(request.topLogprobs)),
            dropPolicy: try self.dropPolicy(request.dropPolicy),
            deadline: deadline
        )
    }

    // MARK: - Ids

    /// The field names of a text or its ids.
    private struct FieldNames {
        let none: String
        let text: String
        let ids: String
    }

    private func input(_ input: ModelInput?) throws(RPCError) -> [Int32] {
        try self.tokens(
            input,
            fields: .init(none: "input", text: "text", ids: "input_ids"),
            limit: self.limits.maxInputTokens
        )
    }

    private func tokens(_ input: ModelInput?, fields: FieldNames, limit: Int) throws(RPCError) -> [Int32] {
        let ids: [Int32]
        let field: String
        switch input {
        case nil:
            throw RPCError(.invalidArgument, "\(fields.none) is missing; set \(fields.text) or \(fields.ids)")
        case .text(let text):
            field = fields.text
            guard text.utf8.count <= self.limits.maxTextBytes else {
                throw RPCError(
                    .resourceExhausted,
                    "\(field) has \(text.utf8.count) bytes; the limit is \(self.limits.maxTextBytes); send a shorter text"
                )
            }
            ids = self.tokenizer.encode(text)
        case .tokenIDs(let given):
            field = fields.ids
            guard !given.isEmpty else {
                throw RPCError(.invalidArgument, "\(field).ids is empty; send at least the end token")
            }
            if let index = given.firstIndex(where: { Int($0) >= self.model.vocabularySize }) {
                throw RPCError(
                    .invalidArgument,
                    "\(field).ids[\(index)] is \(given[index]); the vocabulary ends at \(self.model.vocabularySize - 1)"
                )
            }
            ids = given.map { Int32($0) }
        }
        guard ids.count <= limit else {
            throw RPCError(
                .resourceExhausted,
                "\(field) has \(ids.count) tokens; the limit is \(limit); send a shorter one"
            )
        }
        return ids
    }

    // MARK: - Policies and parameters

    private func dropPolicy(_ message: SwitchyardProtos.DropPolicy?) throws(RPCError) -> DropPolicy {
        guard let message else {
            return .allow
        }
        let fraction = message.maxDroppedFraction
        guard fraction >= 0, fraction <= 1 else {
            throw RPCError(
                .invalidArgument,
                "drop_policy.max_dropped_fraction is \(fraction); it must be from 0 (unlimited) to 1"
            )
        }
        return DropPolicy(strict: message.strict, maxDroppedFraction: fraction == 0 ? nil : fraction)
    }

    private func parameters(_ message: GenerationParametersMessage) throws(RPCError) -> SwitchModel.GenerationParameters
    {
        let parameters = SwitchModel.GenerationParameters(
            message,
            defaults: self.model.generation,
            limits: self.limits
        )
        try Self.check("parameters.max_new_tokens", parameters.maxNewTokens, within: 1...self.limits.maxNewTokens)
        try Self.check("parameters.num_beams", parameters.beamCount, within: 1...self.batchSlots)
        try Self.check("parameters.num_return_sequences", parameters.returnedSequences, within: 1...self.batchSlots)
        try Self.check("parameters.top_logprobs", parameters.topLogprobs, within: 0...self.limits.maxTopLogprobs)
        do throws(GenerationError) {
            try parameters.validate()
        } catch {
            throw RPCError(.invalidArgument, "parameters.\(error.field): \(error.message)")
        }
        return parameters
    }

    private func checkStops(_ stops: [String], parameters: SwitchModel.GenerationParameters) throws(RPCError) {
        guard stops.count <= self.limits.maxStopStrings else {
            throw RPCError(
                .invalidArgument,
                "parameters.stop has \(stops.count) strings; the limit is \(self.limits.maxStopStrings)"
            )
        }
        guard stops.isEmpty || parameters.beamCount == 1 else {
            throw RPCError(
                .invalidArgument,
                "parameters.stop cannot be combined with num_beams of \(parameters.beamCount), since no text is final "
                    + "until a beam search ends; use one beam"
            )
        }
        for (index, stop) in stops.enumerated() {
            try Self.check(
                "the length of parameters.stop[\(index)] in bytes",
                stop.utf8.count,
                within: 1...self.limits.maxStopStringBytes
            )
        }
    }

    private static func check(_ field: String, _ value: Int, within range: ClosedRange<Int>) throws(RPCError) {
        guard range.contains(value) else {
            throw RPCError(
                .invalidArgument,
                "\(field) is \(value); it must be from \(range.lowerBound) to \(range.upperBound)"
            )
        }
    }
}
