// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Tokenization

/// Turns messages into work for the engine, and refuses invalid ones, naming the field, its limit and its value.
struct RequestReader: Sendable {
    let tokenizer: Tokenizer?
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
        try self.requireDecoder()
        let message = request.parameters ?? GenerationParametersMessage()
        try self.refuseStart(request, message)
        let prefix = try self.decoderPrefix(request.decoderPrefix, start: message.decoderStartTokenID)
        // A prompt counts in lengths as a start token and a prefix do, and must be known first.
        let prompt = self.isDecoderOnly ? try self.input(request.input) : nil
        let (parameters, vocabulary) = try self.parameters(
            message,
            prefixLength: prompt.map { $0.count - 1 } ?? prefix.count
        )
        try self.checkStops(message.stop, parameters: parameters)
        let input: [Int32]
        if let prompt { input = prompt } else { input = try self.input(request.input) }
        var work = EngineRequest(
            input: input,
            work: .generate(parameters, stops: message.stop),
            dropPolicy: try self.dropPolicy(request.dropPolicy),
            deadline: deadline
        )
        self.place(request.priority, request.queueTimeoutMilliseconds, in: &work)
        work.vocabulary = vocabulary
        work.decoderPrefix = prefix
        try self.checkRoutes(
            request.returnRoutes || request.returnReceipt,
            named: request.returnRoutes ? "return_routes" : "return_receipt",
            input: work.input.count,
            output: work.slotCount * (parameters.maxNewTokens + (prompt?.count ?? prefix.count))
        )
        work.routing.returnsRoutes = request.returnRoutes
        work.routing.returnsSteps = request.returnReceipt
        return work
    }

    /// Refuses what only a decoder does.
    func requireDecoder() throws(RPCError) {
        guard !self.model.hasDecoder else { return }
        throw RPCError(
            .failedPrecondition,
            "the model is an encoder alone (SwitchTransformersEncoderModel), so it neither generates nor scores: call Encode, or "
                + "serve a checkpoint with a decoder"
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
        try self.refuseEncoderRoutes(request.encoderRoutes != nil, returned: request.returnRoutes)
        var work = EngineRequest(
            input: try self.input(request.input),
            work: .encode,
            dropPolicy: try self.dropPolicy(request.dropPolicy),
            deadline: deadline
        )
        self.place(request.priority, request.queueTimeoutMilliseconds, in: &work)
        try self.checkRoutes(request.returnRoutes, input: work.input.count, output: 0)
        work.routing.returnsRoutes = request.returnRoutes
        work.routing.encoderRoutes = try self.routes(
            request.encoderRoutes,
            field: "encoder_routes",
            stack: .encoder,
            tokens: work.input.count
        )
        return work
    }

    /// Reads a request to score.
    ///
    /// - Parameters:
    ///   - request: The message.
    ///   - deadline: When the client stops waiting.
    /// - Returns: Work for the engine.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    func score(_ request: ScoreRequest, deadline: ContinuousClock.Instant?) throws(RPCError) -> EngineRequest {
        try self.requireDecoder()
        try self.refuseEncoderRoutes(request.encoderRoutes != nil)
        let (input, target) = try self.scored(request)
        try Self.check("top_logprobs", Int(request.topLogprobs), within: 0...self.limits.maxTopLogprobs)
        var work = EngineRequest(
            input: input,
            work: .score(target: target, topLogprobs: Int(request.topLogprobs)),
            dropPolicy: try self.dropPolicy(request.dropPolicy),
            deadline: deadline
        )
        self.place(request.priority, request.queueTimeoutMilliseconds, in: &work)
        // A prompt goes through the decoder together with its target.
        let decoderTokens = self.isDecoderOnly ? input.count + target.count - 1 : target.count
        try self.checkRoutes(request.returnRoutes, input: input.count, output: decoderTokens)
        try self.checkLogits(request.returnLogits, target: target.count)
        work.returnsLogits = request.returnLogits
        work.distributions = try self.distributions(request, target: target.count)
        work.routing.returnsRoutes = request.returnRoutes
        work.routing.returnsStatistics = request.returnRouterLosses
        work.routing.encoderRoutes = try self.routes(
            request.encoderRoutes,
            field: "encoder_routes",
            stack: .encoder,
            tokens: work.input.count
        )
        work.routing.decoderRoutes = try self.routes(
            request.decoderRoutes,
            field: "decoder_routes",
            stack: .decoder,
            tokens: decoderTokens
        )
        return work
    }

    // MARK: - Ids

    /// The field names of a text or its ids.
    struct FieldNames {
        let none: String
        let text: String
        let ids: String
    }

    func input(_ input: ModelInput?) throws(RPCError) -> [Int32] {
        try self.tokens(
            input,
            fields: .init(none: "input", text: "text", ids: "input_ids"),
            limit: self.limits.maxInputTokens
        )
    }

    func tokens(_ input: ModelInput?, fields: FieldNames, limit: Int) throws(RPCError) -> [Int32] {
        let ids: [Int32]
        let field: String
        switch input {
        case nil:
            throw RPCError(.invalidArgument, "\(fields.none) is missing; set \(fields.text) or \(fields.ids)")
        case .text(let text):
            field = fields.text
            try self.checkBytes(text, field: field)
            ids = try self.encode(text, field: field, ids: fields.ids, limit: limit)
        case .tokenIDs(let given):
            field = fields.ids
            guard !given.isEmpty else {
                throw RPCError(
                    .invalidArgument,
                    "\(field).ids is empty; send at least \(self.isDecoderOnly ? "one token" : "the end token")"
                )
            }
            if let index = given.firstIndex(where: { Int($0) >= self.model.vocabularySize }) {
                throw RPCError(
                    .invalidArgument,
                    "\(field).ids[\(index)] is \(given[index]); the vocabulary ends at \(self.model.vocabularySize - 1)"
                )
            }
            ids = given.map { Int32($0) }
        }
        guard !ids.isEmpty else {
            throw RPCError(
                .invalidArgument,
                "\(field) is empty; send at least one character, which the model continues"
            )
        }
        guard ids.count <= limit else {
            throw RPCError(
                .resourceExhausted,
                "\(field) has \(ids.count) tokens; the limit is \(limit); send a shorter one"
            )
        }
        return ids
    }

    /// Reads what every sequence begins with after the start token.
    ///
    /// As in transformers, ids that begin with the start token hold it already.
    ///
    /// - Parameters:
    ///   - prefix: Text or ids; nil for nothing.
    ///   - start: The request's own start token.
    /// - Returns: The tokens without the start token.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    private func decoderPrefix(_ prefix: ModelInput?, start: UInt32?) throws(RPCError) -> [Int32] {
        switch prefix {
        case nil, .text(""), .tokenIDs([]):
            return []
        case .text, .tokenIDs:
            var ids = try self.tokens(
                prefix,
                fields: .init(none: "decoder_prefix", text: "decoder_text", ids: "decoder_input_ids"),
                limit: self.limits.maxTargetTokens
            )
            if case .text = prefix {
                // The end token that the tokenizer adds.
                ids.removeLast()
            } else if ids.first == start.map({ Int32(clamping: $0) }) ?? GenerationVocabulary(self.model).startTokenID {
                ids.removeFirst()
            }
            return ids
        }
    }

    // MARK: - Policies and parameters

    func dropPolicy(_ message: SwitchyardProtos.DropPolicy?) throws(RPCError) -> DropPolicy {
        let fraction = message?.maxDroppedFraction ?? 0
        guard fraction >= 0, fraction <= 1 else {
            throw RPCError(
                .invalidArgument,
                "drop_policy.max_dropped_fraction is \(fraction); it must be from 0 (the gateway's own limit) to 1 (any loss)"
            )
        }
        let isOwn = fraction == 0
        return DropPolicy(
            strict: message?.strict ?? false,
            maxDroppedFraction: isOwn ? self.limits.maxDroppedFraction : fraction,
            isGatewayLimit: isOwn
        )
    }

    /// Reads how tokens are chosen.
    ///
    /// - Parameters:
    ///   - message: The request's fields.
    ///   - prefixLength: The tokens of the decoder prefix, without the start token.
    /// - Returns: The parameters, and the start and end tokens.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    private func parameters(
        _ message: GenerationParametersMessage,
        prefixLength: Int
    ) throws(RPCError) -> (SwitchModel.GenerationParameters, GenerationVocabulary) {
        var settings = self.model.generation
        settings.apply(message)
        var parameters = SwitchModel.GenerationParameters(settings, prefixLength: prefixLength)
        parameters.topLogprobs = Int(message.topLogprobs)
        parameters.skipsScores = message.skipScores
        try self.settleLengths(&parameters, message, settings, prefixLength: prefixLength)
        // Without a seed, every call draws its own, which the answer tells.
        if parameters.sampling { parameters.seed = message.seed ?? UInt64.random(in: 0...UInt64.max) }
        try Self.check("parameters.max_new_tokens", parameters.maxNewTokens, within: 1...self.limits.maxNewTokens)
        try Self.check("parameters.num_beams", parameters.beamCount, within: 1...self.batchSlots)
        try Self.check("parameters.num_return_sequences", parameters.returnedSequences, within: 1...self.batchSlots)
        try Self.check("parameters.top_logprobs", parameters.topLogprobs, within: 0...self.limits.maxTopLogprobs)
        try self.checkTokens(message)
        let vocabulary = try self.vocabulary(message)
        do throws(GenerationError) {
            // A text's tokens are not known yet, but every input holds at least its end token.
            let input = [Int32(clamping: self.model.endTokenID)]
            _ = try GenerationSession(parameters: parameters, vocabulary: vocabulary, encoderTokens: input)
        } catch {
            throw RPCError(.invalidArgument, "parameters.\(error.field): \(error.message)")
        }
        return (parameters, vocabulary)
    }

    /// Brings the model's own lengths within the gateway's limit and the request's lengths.
    private func settleLengths(
        _ parameters: inout SwitchModel.GenerationParameters,
        _ message: GenerationParametersMessage,
        _ settings: GenerationDefaults,
        prefixLength: Int
    ) throws(RPCError) {
        if settings.maxNewTokens == nil, let length = settings.maxLength, length <= prefixLength + 1 {
            throw RPCError(
                .invalidArgument,
                "parameters.max_length is \(length), which leaves no room after "
                    + (self.isDecoderOnly
                        ? "the input's \(prefixLength + 1) tokens; set max_new_tokens"
                        : "the start token and a decoder prefix of \(prefixLength) tokens; set max_new_tokens")
            )
        }
        let isOwn = message.maxNewTokens == nil && (message.maxLength == nil || settings.maxNewTokens != nil)
        if isOwn { parameters.maxNewTokens = min(parameters.maxNewTokens, self.limits.maxNewTokens) }
        // No end before the greatest length is no end at all, as in transformers.
        if message.minNewTokens == nil {
            parameters.minNewTokens = min(parameters.minNewTokens, parameters.maxNewTokens)
        }
    }

    /// The start and end tokens, which a request may replace.
    private func vocabulary(_ message: GenerationParametersMessage) throws(RPCError) -> GenerationVocabulary {
        var vocabulary = GenerationVocabulary(self.model)
        if let start = message.decoderStartTokenID { vocabulary.startTokenID = Int32(clamping: start) }
        if let ends = message.eosTokenID {
            guard (1...64).contains(ends.ids.count) else {
                throw RPCError(
                    .invalidArgument,
                    "parameters.eos_token_id.ids has \(ends.ids.count) ids; send 1 to 64"
                )
            }
            vocabulary.endTokenIDs = ends.ids.map { Int32(clamping: $0) }
        }
        return vocabulary
    }

    /// Checks lists of tokens: their lengths, and that the vocabulary has each id.
    private func checkTokens(_ message: GenerationParametersMessage) throws(RPCError) {
        var lists: [(field: String, ids: [UInt32])] = [
            ("suppress_tokens.ids", message.suppressTokens?.ids ?? []),
            ("begin_suppress_tokens.ids", message.beginSuppressTokens?.ids ?? []),
            ("forced_bos_token_id.ids", message.forcedBosTokenID?.ids ?? []),
            ("forced_eos_token_id.ids", message.forcedEosTokenID?.ids ?? []),
            ("eos_token_id.ids", message.eosTokenID?.ids ?? []),
        ]
        let words = message.badWordsIDs?.lists ?? []
        let biases = message.sequenceBias?.biases ?? []
        let most = self.limits.maxListedTokens
        try Self.check("the number of lists in parameters.bad_words_ids", words.count, within: 0...most)
        try Self.check("the number of biases in parameters.sequence_bias", biases.count, within: 0...most)
        try Self.check(
            "the number of ids in parameters.forced_bos_token_id",
            message.forcedBosTokenID?.ids.count ?? 0,
            within: 0...1
        )
        for (index, list) in words.enumerated() {
            try Self.check("the number of ids in bad_words_ids.lists[\(index)]", list.ids.count, within: 1...most)
            lists.append(("bad_words_ids.lists[\(index)].ids", list.ids))
        }
        for (index, bias) in biases.enumerated() {
            try Self.check(
                "the number of tokens in sequence_bias.biases[\(index)]",
                bias.tokens.count,
                within: 1...most
            )
            lists.append(("sequence_bias.biases[\(index)].tokens", bias.tokens))
        }
        try Self.check("the number of listed token ids", lists.reduce(0) { $0 + $1.ids.count }, within: 0...most)
        for (field, ids) in lists {
            if let index = ids.firstIndex(where: { Int($0) >= self.model.vocabularySize }) {
                throw RPCError(
                    .invalidArgument,
                    "parameters.\(field)[\(index)] is \(ids[index]); the vocabulary ends at "
                        + "\(self.model.vocabularySize - 1)"
                )
            }
        }
    }

    private func checkStops(_ stops: [String], parameters: SwitchModel.GenerationParameters) throws(RPCError) {
        guard stops.count <= self.limits.maxStopStrings else {
            throw RPCError(
                .invalidArgument,
                "parameters.stop has \(stops.count) strings; the limit is \(self.limits.maxStopStrings)"
            )
        }
        guard stops.isEmpty || self.tokenizer != nil else {
            throw RPCError(
                .invalidArgument,
                "parameters.stop is set, but this model has no tokenizer and gives ids only; leave it empty"
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

    static func check(_ field: String, _ value: Int, within range: ClosedRange<Int>) throws(RPCError) {
        guard range.contains(value) else {
            throw RPCError(
                .invalidArgument,
                "\(field) is \(value); it must be from \(range.lowerBound) to \(range.upperBound)"
            )
        }
    }
}
