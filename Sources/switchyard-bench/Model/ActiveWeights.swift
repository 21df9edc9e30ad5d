// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes

/// The weights that one decode step reads, counted from a model's shape.
///
/// Norms, biases and embeddings of single tokens are left out: together they are less than a thousandth. Keys and values
/// of the encoder's output are made once per sequence, so their projections are not part of a step.
struct ActiveWeights: Equatable {
    /// Weights that every step reads, whatever its tokens: attention, dense layers, the projection onto the vocabulary.
    var everyStep: Int
    /// Weights of all routers, which stay float32.
    var routers: Int
    /// Weights of one expert.
    var expert: Int
    /// Sparse layers of the decoder.
    var sparseLayers: Int

    /// Counts a model's weights.
    ///
    /// - Parameter configuration: The model's shape.
    init(_ configuration: ModelConfiguration) {
        let width = configuration.modelWidth
        let feedForward = configuration.feedForwardMatrices.count * width * configuration.feedForwardWidth
        let sparse = configuration.sparseLayers.count { $0.stack == .decoder }
        // Four projections of the self-attention; query and output of the cross-attention.
        let attention = 6 * width * configuration.attentionWidth
        self.everyStep =
            configuration.decoderBlocks * attention + (configuration.decoderBlocks - sparse) * feedForward
            + configuration.vocabularySize * width
        self.routers = sparse * configuration.expertCount * width
        self.expert = feedForward
        self.sparseLayers = sparse
    }

    /// Bytes that one step reads.
    ///
    /// - Parameters:
    ///   - experts: Different experts that the step's tokens go to, on average over the sparse layers.
    ///   - weightBytes: Bytes of one weight: the gateway's, and the experts'.
    /// - Returns: Bytes of weights.
    func bytes(experts: Double, weightBytes: (model: Double, experts: Double)) -> Double {
        let inExperts = experts * Double(self.sparseLayers * self.expert)
        return Double(self.everyStep) * weightBytes.model + inExperts * weightBytes.experts + Double(4 * self.routers)
    }
}
