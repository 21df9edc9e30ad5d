// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardProtos

extension SwitchModel.GenerationParameters {
    /// Combines a request's fields with the defaults, without checking them.
    ///
    /// A field left at zero takes the value of the model's generation configuration, or transformers' default if that
    /// has none.
    ///
    /// - Parameters:
    ///   - message: The request's fields.
    ///   - defaults: The model's generation configuration.
    ///   - limits: Bounds the model's own number of new tokens.
    init(_ message: GenerationParametersMessage, defaults: GenerationDefaults, limits: RequestLimits) {
        self.init()
        // The model's own lengths must not invalidate a request that leaves them out.
        let mostTokens = min(max(1, defaults.newTokenLimit ?? self.maxNewTokens), limits.maxNewTokens)
        let fewestTokens = defaults.minNewTokens ?? defaults.minLength.map { max(0, $0 - 1) } ?? self.minNewTokens
        self.maxNewTokens = message.maxNewTokens.given ?? mostTokens
        self.minNewTokens = message.minNewTokens.given ?? min(fewestTokens, self.maxNewTokens)
        self.beamCount = message.numBeams.given ?? defaults.beamCount ?? self.beamCount
        self.lengthPenalty = message.lengthPenalty.given ?? defaults.lengthPenalty ?? self.lengthPenalty
        self.earlyStopping = defaults.earlyStopping ?? self.earlyStopping
        self.sampling = message.doSample || defaults.sampling ?? self.sampling
        self.temperature = message.temperature.given ?? defaults.temperature ?? self.temperature
        self.topK = message.topK.given ?? defaults.topK ?? self.topK
        self.topP = message.topP.given ?? defaults.topP ?? self.topP
        self.repetitionPenalty = message.repetitionPenalty.given ?? defaults.repetitionPenalty ?? self.repetitionPenalty
        self.seed = message.seed
        self.returnedSequences =
            message.numReturnSequences.given ?? defaults.returnedSequences ?? self.returnedSequences
        self.topLogprobs = Int(message.topLogprobs)
        self.skipsScores = message.skipScores
    }
}

extension UInt32 {
    /// The number, or nil for the zero of an unset field.
    fileprivate var given: Int? { self == 0 ? nil : Int(self) }
}

extension Float {
    /// The number, or nil for the zero of an unset field.
    fileprivate var given: Float? { self == 0 ? nil : self }
}
