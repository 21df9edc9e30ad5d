// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardProtos

extension SwitchModel.GenerationParameters {
    /// Puts together what a request asks for, without checking it.
    ///
    /// A field that the request leaves at zero has the value of the model's generation configuration, or transformers'
    /// default where that is silent too.
    ///
    /// - Parameters:
    ///   - message: The request's fields.
    ///   - defaults: The model's generation configuration.
    ///   - limits: Bounds the model's own number of new tokens.
    init(_ message: GenerationParametersMessage, defaults: GenerationDefaults, limits: RequestLimits) {
        self.init()
        // The model's lengths must not make a request wrong that says nothing about them.
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
    /// The number, or nil for the zero that a field has which is not set.
    fileprivate var given: Int? { self == 0 ? nil : Int(self) }
}

extension Float {
    /// The number, or nil for the zero that a field has which is not set.
    fileprivate var given: Float? { self == 0 ? nil : self }
}
