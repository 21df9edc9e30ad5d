// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ServiceKit
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

extension ModelDescription {
    /// Describes a checkpoint, except the experts served at the moment.
    ///
    /// - Parameters:
    ///   - checkpoint: The whole checkpoint or its gateway part.
    ///   - name: The model's name.
    ///   - weightType: How the gateway keeps weights.
    ///   - limits: How large requests may be.
    ///   - batchSlots: How wide requests may be.
    init(_ checkpoint: Checkpoint, name: String, weightType: DType, limits: RequestLimits, batchSlots: Int) {
        let model = checkpoint.configuration
        self.init()
        self.name = name
        self.fingerprint = checkpoint.fingerprint
        self.vocabularySize = UInt32(model.vocabularySize)
        self.modelWidth = UInt32(model.modelWidth)
        self.feedForwardWidth = UInt32(model.feedForwardWidth)
        self.keyWidth = UInt32(model.keyWidth)
        self.numHeads = UInt32(model.headCount)
        self.encoderBlocks = UInt32(model.encoderBlocks)
        self.decoderBlocks = UInt32(model.decoderBlocks)
        self.expertsPerLayer = UInt32(model.expertCount)
        self.expertCapacity = UInt32(model.expertCapacity)
        self.parameters = UInt64(clamping: model.parameterCount)
        self.weightDType = WireDType(weightType)
        self.maxInputTokens = UInt32(limits.maxInputTokens)
        self.maxNewTokens = UInt32(limits.maxNewTokens)
        self.maxSequences = UInt32(batchSlots)
        self.decoderStartTokenID = UInt32(model.decoderStartTokenID)
        self.endTokenID = UInt32(model.endTokenID)
        self.padTokenID = UInt32(model.padTokenID)
        self.version = SoftwareVersion.current
        self.maxInputs = UInt32(limits.maxInputs)
    }
}
