// SPDX-License-Identifier: Apache-2.0

public import Checkpoints

extension GenerationParameters {
    /// Takes settings, those of a model or a request's over them, without checking them; the others have their defaults.
    ///
    /// Where not told in new tokens, lengths count the start token and the decoder prefix, as in transformers.
    ///
    /// - Parameters:
    ///   - settings: The settings; those that only sampling reads are passed over unless tokens are sampled.
    ///   - prefixLength: The tokens of the decoder prefix, without the start token.
    public init(_ settings: GenerationDefaults, prefixLength: Int = 0) {
        self.init()
        func given<Value>(_ path: WritableKeyPath<Self, Value>, _ value: Value?) {
            if let value { self[keyPath: path] = value }
        }
        let held = prefixLength + 1
        given(\.maxNewTokens, settings.maxNewTokens ?? settings.maxLength.map { $0 - held })
        given(\.minNewTokens, settings.minNewTokens ?? settings.minLength.map { max(0, $0 - held) })
        given(\.beamCount, settings.beamCount)
        given(\.lengthPenalty, settings.lengthPenalty)
        given(\.earlyStopping, settings.earlyStopping)
        given(\.sampling, settings.sampling)
        given(\.repetitionPenalty, settings.repetitionPenalty)
        given(\.returnedSequences, settings.returnedSequences)
        given(\.temperature, settings.temperature)
        given(\.topK, settings.topK)
        given(\.topP, settings.topP)
        // At these values transformers leaves the filter out.
        given(\.minP, settings.minP.flatMap { $0 == 0 ? nil : $0 })
        given(\.typicalP, settings.typicalP.map { min($0, 1) })
        given(\.epsilonCutoff, settings.epsilonCutoff.map { $0 >= 1 ? 0 : $0 })
        given(\.etaCutoff, settings.etaCutoff.map { $0 >= 1 ? 0 : $0 })
        given(\.beamGroups, settings.beamGroups)
        given(\.diversityPenalty, settings.diversityPenalty)
        given(\.renormalizesLogits, settings.renormalizesLogits)
        given(\.encoderRepetitionPenalty, settings.encoderRepetitionPenalty)
        given(\.noRepeatNgramSize, settings.noRepeatNgramSize)
        given(\.encoderNoRepeatNgramSize, settings.encoderNoRepeatNgramSize)
        // An id that does not fit in Int32 is beyond every vocabulary, as the checks of ids report.
        func ids(_ ids: [Int]) -> [Int32] { ids.map { Int32(clamping: $0) } }
        given(\.badWords, settings.badWords?.map(ids))
        given(\.suppressedTokens, settings.suppressedTokens.map(ids))
        given(\.beginSuppressedTokens, settings.beginSuppressedTokens.map(ids))
        given(\.forcedBeginToken, settings.forcedBeginToken.map { Int32(clamping: $0) })
        given(\.forcedEndTokens, settings.forcedEndTokens.map(ids))
        given(\.sequenceBias, settings.sequenceBias?.map { SequenceBias(tokens: ids($0.tokens), bias: $0.bias) })
        given(\.lengthDecay, settings.lengthDecay.map { LengthDecay(startIndex: $0.startIndex, factor: $0.factor) })
    }

    /// Checks that a model's own settings can be served, so that no request fails because of them.
    ///
    /// - Parameters:
    ///   - model: The model's configuration.
    ///   - widest: The most beams and returned sequences of a request.
    /// - Throws: `CheckpointError` that names the file, the key, its limit and its value.
    public static func check(
        settingsOf model: ModelConfiguration,
        widest: Int = Self.maximumWidth
    ) throws(CheckpointError) {
        var settings = model.generation
        if settings.sampling != true { settings.removeSamplingKeys() }
        do throws(GenerationError) {
            try settings.checkTokens(vocabularySize: model.vocabularySize)
            var parameters = Self(settings)
            // Longer answers than a request may ask for are cut off, and no end before the greatest length is no end.
            parameters.maxNewTokens = min(parameters.maxNewTokens, Self.maximumNewTokens)
            parameters.minNewTokens = min(parameters.minNewTokens, parameters.maxNewTokens)
            for (field, value) in [
                ("num_beams", parameters.beamCount), ("num_return_sequences", parameters.returnedSequences),
            ] where value > widest {
                throw GenerationError(field: field, message: "must be at most \(widest), but is \(value)")
            }
            // Some parameters go by the input's tokens; which ones these are does not matter for the check.
            _ = try GenerationSession(parameters: parameters, configuration: model, encoderTokens: [0])
        } catch {
            throw CheckpointError(
                code: .invalidConfiguration,
                message: "\(error.field) \(error.message); correct the file",
                file: settings.file
            )
        }
    }
}

extension GenerationDefaults {
    /// Sets aside what only sampling reads.
    public mutating func removeSamplingKeys() {
        self.temperature = nil
        self.topK = nil
        self.topP = nil
        self.minP = nil
        self.typicalP = nil
        self.epsilonCutoff = nil
        self.etaCutoff = nil
    }

    /// Checks that the vocabulary has every token that the settings name.
    ///
    /// - Parameter size: The number of tokens.
    /// - Throws: `GenerationError` that names the key, its limit and the token.
    func checkTokens(vocabularySize size: Int) throws(GenerationError) {
        let lists: [(key: String, tokens: [Int])] = [
            ("bad_words_ids", self.badWords?.flatMap { $0 } ?? []),
            ("suppress_tokens", self.suppressedTokens ?? []),
            ("begin_suppress_tokens", self.beginSuppressedTokens ?? []),
            ("forced_bos_token_id", self.forcedBeginToken.map { [$0] } ?? []),
            ("forced_eos_token_id", self.forcedEndTokens ?? []),
            ("sequence_bias", self.sequenceBias?.flatMap(\.tokens) ?? []),
        ]
        for (key, tokens) in lists {
            guard let other = tokens.first(where: { $0 < 0 || $0 >= size }) else { continue }
            throw GenerationError(field: key, message: "must be within the vocabulary of \(size), but is \(other)")
        }
    }
}
