// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardProtos

extension GenerationDefaults {
    /// Lays a request's fields over the model's settings, without checking them.
    ///
    /// Of what only sampling reads, the model's values count if tokens are sampled, and `temperature: 0`, with which
    /// transformers refuses to sample, counts as left out if they are not.
    ///
    /// - Parameter message: The request's fields.
    mutating func apply(_ message: GenerationParametersMessage) {
        self.take(message.doSample, for: \.sampling)
        if self.sampling != true { self.removeSamplingKeys() }
        self.take(message.maxNewTokens, for: \.maxNewTokens)
        self.take(message.maxLength, for: \.maxLength)
        self.take(message.minNewTokens, for: \.minNewTokens)
        self.take(message.minLength, for: \.minLength)
        self.take(message.numBeams, for: \.beamCount)
        self.take(message.numReturnSequences, for: \.returnedSequences)
        self.take(message.numBeamGroups, for: \.beamGroups)
        self.take(message.diversityPenalty, for: \.diversityPenalty)
        self.take(message.lengthPenalty, for: \.lengthPenalty)
        self.take(EarlyStopping(message.earlyStopping), for: \.earlyStopping)
        self.take(message.repetitionPenalty, for: \.repetitionPenalty)
        self.take(message.encoderRepetitionPenalty, for: \.encoderRepetitionPenalty)
        self.take(message.noRepeatNgramSize, for: \.noRepeatNgramSize)
        self.take(message.encoderNoRepeatNgramSize, for: \.encoderNoRepeatNgramSize)
        self.take(message.renormalizeLogits, for: \.renormalizesLogits)
        self.take(message.temperature, for: \.temperature)
        self.take(message.topK, for: \.topK)
        self.take(message.topP, for: \.topP)
        self.take(message.minP, for: \.minP)
        self.take(message.typicalP, for: \.typicalP)
        self.take(message.epsilonCutoff, for: \.epsilonCutoff)
        self.take(message.etaCutoff, for: \.etaCutoff)
        if self.sampling != true, self.temperature == 0 { self.temperature = nil }
        self.applyTokens(message)
    }

    private mutating func applyTokens(_ message: GenerationParametersMessage) {
        self.take(message.suppressTokens.map { Self.ids($0.ids) }, for: \.suppressedTokens)
        self.take(message.beginSuppressTokens.map { Self.ids($0.ids) }, for: \.beginSuppressedTokens)
        self.take(message.forcedEosTokenID.map { Self.ids($0.ids) }, for: \.forcedEndTokens)
        self.take(message.badWordsIDs.map { $0.lists.map { Self.ids($0.ids) } }, for: \.badWords)
        self.take(
            message.sequenceBias.map { $0.biases.map { SequenceBias(tokens: Self.ids($0.tokens), bias: $0.bias) } },
            for: \.sequenceBias
        )
        self.take(
            message.exponentialDecayLengthPenalty.map {
                LengthDecay(startIndex: Int($0.startIndex), factor: $0.factor)
            },
            for: \.lengthDecay
        )
        // An empty list stands for null, which an id cannot say.
        if let forced = message.forcedBosTokenID { self.forcedBeginToken = Self.ids(forced.ids).first }
        if let ends = message.eosTokenID { self.endTokenIDs = Self.ids(ends.ids) }
    }

    private mutating func take<Value>(_ value: Value?, for path: WritableKeyPath<Self, Value?>) {
        if let value { self[keyPath: path] = value }
    }

    private mutating func take(_ value: UInt32?, for path: WritableKeyPath<Self, Int?>) {
        if let value { self[keyPath: path] = Int(value) }
    }

    private static func ids(_ ids: [UInt32]) -> [Int] { ids.map { Int($0) } }
}

extension EarlyStopping {
    /// What a request asks for; nil if it leaves it to the model.
    fileprivate init?(_ message: WireEarlyStopping) {
        switch message {
        case .unspecified: return nil
        case .heuristic: self = .heuristic
        case .always: self = .always
        case .never: self = .never
        }
    }
}
