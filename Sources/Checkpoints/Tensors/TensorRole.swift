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
public enum TensorRole: Hashable, Sendable {
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

    /// Whether the tensor is an expert's and so belongs to an expert shard, not to the gateway part.
    public var isExpert: Bool {
        if case .expert = self { true } else { false }
    }
}
