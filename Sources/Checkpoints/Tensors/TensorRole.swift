// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The two attention layers that a block may have.
public enum AttentionKind: UInt8, Sendable, Hashable, CaseIterable {
    /// Every block's attention to its own stack.
    case selfAttention
    /// A decoder block's attention to the encoder's output.
    case cross
}

/// The four matrices of an attention layer.
public enum AttentionProjection: UInt8, Sendable, Hashable, CaseIterable {
    /// `[headCount * keyWidth, modelWidth]`
    case query
    /// `[headCount * keyWidth, modelWidth]`
    case key
    /// `[headCount * keyWidth, modelWidth]`
    case value
    /// `[modelWidth, headCount * keyWidth]`
    case output
}

/// The parts of a block that each begin with their own layer norm.
public enum Sublayer: UInt8, Sendable, Hashable, CaseIterable {
    /// Attention to the block's own stack.
    case selfAttention
    /// Attention to the encoder's output; decoder only.
    case crossAttention
    /// The dense network or the experts.
    case feedForward
}

/// The matrices that a feed-forward network may have, dense or expert: `wi` and `wo`, or where it is gated `wi0`, `wi1`
/// and `wo` (`ModelConfiguration.feedForwardMatrices`).
public enum FeedForwardMatrix: UInt8, Sendable, Hashable, CaseIterable {
    /// `[feedForwardWidth, modelWidth]`
    case wi
    /// `[modelWidth, feedForwardWidth]`
    case wo
    /// `[feedForwardWidth, modelWidth]`: the gate, which the activation is applied to.
    case wi0
    /// `[feedForwardWidth, modelWidth]`: what the gate is multiplied with.
    case wi1
}

/// What a tensor is for, independent of its name and layout in a checkpoint.
public indirect enum TensorRole: Hashable, Sendable {
    /// The token embedding of both stacks, `[vocabularySize, modelWidth]`.
    case sharedEmbedding
    /// The output projection, `[vocabularySize, modelWidth]`; the shared embedding where the embeddings are tied.
    case lmHead
    /// The norm that ends a stack, `[modelWidth]`.
    case finalNorm(Stack)
    /// One matrix of one attention layer.
    case attention(Stack, block: Int, AttentionKind, AttentionProjection)
    /// The relative position bias of a stack, `[relativeBuckets, headCount]`, held by its block 0.
    case relativeBias(Stack)
    /// The norm that a sublayer begins with, `[modelWidth]`.
    case layerNorm(Stack, block: Int, Sublayer)
    /// One matrix of a dense feed-forward network.
    case dense(Stack, block: Int, FeedForwardMatrix)
    /// The router's matrix, `[expertCount, modelWidth]`.
    case router(SparseLayer)
    /// The router's bias, `[expertCount]`, in checkpoints whose configuration has one.
    case routerBias(SparseLayer)
    /// One matrix of one expert.
    case expert(SparseLayer, expert: Int, FeedForwardMatrix)
    /// What is added to the outputs of a matrix or norm, one element for each, in families that have it.
    case bias(of: TensorRole)

    /// Whether the tensor is an expert's and so belongs to an expert shard, not to the gateway part.
    public var isExpert: Bool { self.expert != nil }

    /// The layer and the index of the expert that the tensor belongs to; nil for one that is no expert's.
    var expert: (layer: SparseLayer, index: Int)? {
        switch self {
        case .expert(let layer, let expert, _): (layer, expert)
        case .bias(let part): part.expert
        default: nil
        }
    }

    /// Whether the tensor is added to outputs rather than multiplied with inputs, and so stays float32 and unpacked.
    var isBias: Bool {
        switch self {
        case .bias, .routerBias: true
        default: false
        }
    }

    /// Whether a part of a model is one that a family with biases gives a bias.
    var takesBias: Bool {
        switch self {
        case .lmHead, .finalNorm, .layerNorm, .attention, .dense, .expert: true
        // A router's bias is a role of its own.
        case .sharedEmbedding, .relativeBias, .router, .routerBias, .bias: false
        }
    }
}
