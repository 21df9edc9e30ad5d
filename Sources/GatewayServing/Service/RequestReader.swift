// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import Tokenization

/// Turns messages into work for the engine and refuses those that cannot be: every field, with its name, its limit and
/// its value.
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

    /// What the fields of a text or its ids are called.
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
                "drop_policy.max_dropped_fraction is \(fraction); it must be from 0, which is no limit, to 1"
            )
        }
        return DropPolicy(strict: message.strict, maxDroppedFraction: fraction == 0 ? nil : fraction)
    }

    /// The request's parameters, each zero replaced by the model's own default.
    private func parameters(_ message: GenerationParametersMessage) throws(RPCError) -> SwitchModel.GenerationParameters
    {
        var parameters = SwitchModel.GenerationParameters(defaults: self.model.generation)
        parameters.maxNewTokens = min(parameters.maxNewTokens, self.limits.maxNewTokens)
        if message.maxNewTokens != 0 {
            try Self.check(
                "parameters.max_new_tokens",
                Int(message.maxNewTokens),
                within: 1...self.limits.maxNewTokens
            )
            parameters.maxNewTokens = Int(message.maxNewTokens)
        }
        // A default must not make a request wrong that says nothing about it.
        parameters.minNewTokens = min(parameters.minNewTokens, parameters.maxNewTokens)
        parameters.minNewTokens = message.minNewTokens == 0 ? parameters.minNewTokens : Int(message.minNewTokens)
        parameters.beamCount = message.numBeams == 0 ? parameters.beamCount : Int(message.numBeams)
        parameters.lengthPenalty = message.lengthPenalty == 0 ? parameters.lengthPenalty : message.lengthPenalty
        parameters.sampling = message.doSample || parameters.sampling
        parameters.temperature = message.temperature == 0 ? parameters.temperature : message.temperature
        parameters.topK = message.topK == 0 ? parameters.topK : Int(message.topK)
        parameters.topP = message.topP == 0 ? parameters.topP : message.topP
        let penalty = message.repetitionPenalty
        parameters.repetitionPenalty = penalty == 0 ? parameters.repetitionPenalty : penalty
        parameters.seed = message.seed
        let returned = message.numReturnSequences
        parameters.returnedSequences = returned == 0 ? parameters.returnedSequences : Int(returned)
        parameters.topLogprobs = Int(message.topLogprobs)
        parameters.skipsScores = message.skipScores
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
                "parameters.stop cannot be combined with num_beams of \(parameters.beamCount), since no text is certain "
                    + "before a beam search ends; use one beam"
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

extension SwitchModel.GenerationParameters {
    /// What a model's own generation configuration asks for; transformers' defaults where it is silent.
    init(defaults: GenerationDefaults) {
        self.init()
        self.maxNewTokens = max(1, defaults.newTokenLimit ?? self.maxNewTokens)
        self.minNewTokens = defaults.minNewTokens ?? defaults.minLength.map { max(0, $0 - 1) } ?? self.minNewTokens
        self.beamCount = defaults.beamCount ?? self.beamCount
        self.lengthPenalty = defaults.lengthPenalty ?? self.lengthPenalty
        switch defaults.earlyStopping {
        case .always: self.earlyStopping = .always
        case .never: self.earlyStopping = .never
        case .heuristic, nil: self.earlyStopping = .heuristic
        }
        self.sampling = defaults.sampling ?? self.sampling
        self.temperature = defaults.temperature ?? self.temperature
        self.topK = defaults.topK ?? self.topK
        self.topP = defaults.topP ?? self.topP
        self.repetitionPenalty = defaults.repetitionPenalty ?? self.repetitionPenalty
        self.returnedSequences = defaults.returnedSequences ?? self.returnedSequences
    }
}
