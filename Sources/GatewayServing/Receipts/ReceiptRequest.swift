// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardProtos

/// A request as the engine understood it, as a message that leaves nothing to the model's own settings.
///
/// Read over no settings at all (``ReceiptRequest/settings(padToken:)``), it gives the same request again.
enum ReceiptRequest {
    /// The settings that a receipt's request is read over: transformers' defaults.
    static func settings(padToken: UInt32?) -> GenerationDefaults {
        var settings = GenerationDefaults(endTokenIDs: [])
        settings.padTokenID = padToken.map { Int($0) }
        return settings
    }

    /// The message for a request to generate.
    ///
    /// - Parameters:
    ///   - work: The request.
    ///   - model: The model's configuration.
    /// - Returns: The message; nil for another kind of work.
    static func message(_ work: EngineRequest, model: ModelConfiguration) -> GenerateRequest? {
        guard case .generate(let parameters, let stops) = work.work else { return nil }
        let vocabulary = work.vocabulary ?? GenerationVocabulary(model)
        var message = GenerateRequest(input: .tokenIDs(Self.ids(work.input)))
        message.parameters = Self.parameters(parameters, stops: stops, vocabulary: vocabulary)
        message.dropPolicy = SwitchyardProtos.DropPolicy(
            strict: work.dropPolicy.strict,
            maxDroppedFraction: work.dropPolicy.maxDroppedFraction ?? 1
        )
        if model.design.isDecoderOnly {
            // The answer continues the input, and there is no start token.
            message.parameters?.decoderStartTokenID = nil
        } else if !work.decoderPrefix.isEmpty {
            message.decoderPrefix = .tokenIDs(Self.ids([vocabulary.startTokenID] + work.decoderPrefix))
        }
        return message
    }

    private static func parameters(
        _ parameters: SwitchModel.GenerationParameters,
        stops: [String],
        vocabulary: GenerationVocabulary
    ) -> GenerationParametersMessage {
        var message = GenerationParametersMessage()
        message.maxNewTokens = UInt32(clamping: parameters.maxNewTokens)
        message.minNewTokens = UInt32(clamping: parameters.minNewTokens)
        message.numBeams = UInt32(clamping: parameters.beamCount)
        message.lengthPenalty = parameters.lengthPenalty
        message.earlyStopping = Self.earlyStopping(parameters.earlyStopping)
        message.doSample = parameters.sampling
        message.repetitionPenalty = parameters.repetitionPenalty
        message.stop = stops
        message.numReturnSequences = UInt32(clamping: parameters.returnedSequences)
        message.topLogprobs = UInt32(clamping: parameters.topLogprobs)
        message.skipScores = parameters.skipsScores
        message.numBeamGroups = UInt32(clamping: parameters.beamGroups)
        message.diversityPenalty = parameters.diversityPenalty
        message.noRepeatNgramSize = UInt32(clamping: parameters.noRepeatNgramSize)
        message.encoderNoRepeatNgramSize = UInt32(clamping: parameters.encoderNoRepeatNgramSize)
        message.encoderRepetitionPenalty = parameters.encoderRepetitionPenalty
        message.renormalizeLogits = parameters.renormalizesLogits
        if parameters.sampling { Self.addSampling(parameters, to: &message) }
        Self.addTokens(parameters, vocabulary: vocabulary, to: &message)
        return message
    }

    /// What only sampling reads.
    private static func addSampling(
        _ parameters: SwitchModel.GenerationParameters,
        to message: inout GenerationParametersMessage
    ) {
        message.seed = parameters.seed
        message.temperature = parameters.temperature
        message.topK = UInt32(clamping: parameters.topK)
        message.topP = parameters.topP
        message.minP = parameters.minP
        message.typicalP = parameters.typicalP
        message.epsilonCutoff = parameters.epsilonCutoff
        message.etaCutoff = parameters.etaCutoff
    }

    /// Lists of tokens; one that is left out is empty.
    private static func addTokens(
        _ parameters: SwitchModel.GenerationParameters,
        vocabulary: GenerationVocabulary,
        to message: inout GenerationParametersMessage
    ) {
        func list(_ ids: [Int32]) -> TokenIDs? { ids.isEmpty ? nil : TokenIDs(ids: Self.ids(ids)) }
        message.suppressTokens = list(parameters.suppressedTokens)
        message.beginSuppressTokens = list(parameters.beginSuppressedTokens)
        message.forcedBosTokenID = list(parameters.forcedBeginToken.map { [$0] } ?? [])
        message.forcedEosTokenID = list(parameters.forcedEndTokens)
        message.eosTokenID = list(vocabulary.endTokenIDs)
        message.decoderStartTokenID = UInt32(clamping: vocabulary.startTokenID)
        if !parameters.badWords.isEmpty {
            message.badWordsIDs = TokenLists(lists: parameters.badWords.map { TokenIDs(ids: Self.ids($0)) })
        }
        if !parameters.sequenceBias.isEmpty {
            message.sequenceBias = SequenceBiases(
                biases: parameters.sequenceBias.map {
                    SwitchyardProtos.SequenceBias(tokens: Self.ids($0.tokens), bias: $0.bias)
                }
            )
        }
        message.exponentialDecayLengthPenalty = parameters.lengthDecay.map {
            SwitchyardProtos.LengthDecay(startIndex: UInt32(clamping: $0.startIndex), factor: $0.factor)
        }
    }

    private static func earlyStopping(_ value: EarlyStopping) -> WireEarlyStopping {
        switch value {
        case .heuristic: .heuristic
        case .always: .always
        case .never: .never
        }
    }

    private static func ids(_ ids: [Int32]) -> [UInt32] { ids.map { UInt32(bitPattern: $0) } }
}
