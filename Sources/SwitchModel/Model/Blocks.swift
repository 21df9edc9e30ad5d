// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// One encoder block: `x += attention(norm(x))`, `x += feedForward(norm(x))`.
struct EncoderBlock: Sendable {
    let attentionNorm: RMSNorm
    let attention: EncoderAttention
    let feedForward: FeedForwardSublayer
}

/// One decoder block, which attends to the encoded sequence in between.
struct DecoderBlock: Sendable {
    let attentionNorm: RMSNorm
    let attention: DecoderSelfAttention
    let crossNorm: RMSNorm
    let cross: CrossAttention
    let feedForward: FeedForwardSublayer
}

/// The last sublayer of a block, dense or sparse, with its norm and its residual.
struct FeedForwardSublayer: Sendable {
    enum Kind: Sendable {
        case dense(FeedForward)
        case sparse(SparseFeedForward)
    }

    /// How far the sublayer has come.
    enum Progress {
        /// Its output, `[tokens, d_model]`.
        case done(FloatMatrix)
        /// The experts have its tokens.
        case out(SparseFeedForward.Out, SparseFeedForward)
    }

    let norm: RMSNorm
    let kind: Kind

    /// Joins the attention's output to the residual, then computes the sublayer with its own residual, or the part of
    /// it before the experts.
    ///
    /// - Parameters:
    ///   - hidden: The attention's input before its norm, `[tokens, d_model]`.
    ///   - attended: The attention's output, `[tokens, d_model]`.
    ///   - step: The call of the model.
    ///   - record: Counts what happens to the tokens.
    /// - Returns: The output, or the unfinished work.
    func begin(
        _ hidden: FloatMatrix,
        attended: FloatMatrix,
        step: StepContext,
        record: inout RoutingRecord
    ) -> Progress {
        let (hidden, normed) = self.norm.adding(attended, to: hidden, pool: step.pool)
        switch self.kind {
        case .dense(let dense):
            return .done(Residual.add(hidden, dense(normed, pool: step.pool), pool: step.pool))
        case .sparse(let sparse):
            return .out(sparse.begin(normed, residual: hidden, step: step, record: &record), sparse)
        }
    }
}

/// Puts blocks together from a checkpoint's tensors.
struct BlockBuilder {
    let configuration: ModelConfiguration
    let loader: WeightLoader

    func norm(_ role: TensorRole) throws -> RMSNorm {
        RMSNorm(weights: try self.loader.floats(role), epsilon: self.configuration.layerNormEpsilon)
    }

    func relativeBias(_ stack: Stack) throws -> RelativeBias {
        RelativeBias(
            table: try self.loader.floats(.relativeBias(stack)),
            bidirectional: stack == .encoder,
            largestDistance: self.configuration.relativeMaxDistance
        )
    }

    func encoderBlock(_ block: Int) throws -> EncoderBlock {
        EncoderBlock(
            attentionNorm: try self.norm(.layerNorm(.encoder, block: block, .selfAttention)),
            attention: EncoderAttention(
                weights: try self.attention(.encoder, block, .selfAttention),
                headCount: self.configuration.headCount,
                keyWidth: self.configuration.keyWidth
            ),
            feedForward: try self.feedForward(.encoder, block)
        )
    }

    func decoderBlock(_ block: Int) throws -> DecoderBlock {
        DecoderBlock(
            attentionNorm: try self.norm(.layerNorm(.decoder, block: block, .selfAttention)),
            attention: DecoderSelfAttention(
                weights: try self.attention(.decoder, block, .selfAttention),
                headCount: self.configuration.headCount,
                keyWidth: self.configuration.keyWidth,
                block: block
            ),
            crossNorm: try self.norm(.layerNorm(.decoder, block: block, .crossAttention)),
            cross: CrossAttention(
                weights: try self.attention(.decoder, block, .cross),
                headCount: self.configuration.headCount,
                keyWidth: self.configuration.keyWidth,
                block: block
            ),
            feedForward: try self.feedForward(.decoder, block)
        )
    }

    private func attention(_ stack: Stack, _ block: Int, _ kind: AttentionKind) throws -> AttentionWeights {
        AttentionWeights(
            query: try self.loader.packed(.attention(stack, block: block, kind, .query)),
            key: try self.loader.packed(.attention(stack, block: block, kind, .key)),
            value: try self.loader.packed(.attention(stack, block: block, kind, .value)),
            output: try self.loader.packed(.attention(stack, block: block, kind, .output))
        )
    }

    private func feedForward(_ stack: Stack, _ block: Int) throws -> FeedForwardSublayer {
        let norm = try self.norm(.layerNorm(stack, block: block, .feedForward))
        guard self.configuration.isSparse(stack, block: block) else {
            let dense = FeedForward(
                weights: try FeedForwardWeights(isGated: self.configuration.gatedFeedForward) { matrix in
                    try self.loader.packed(.dense(stack, block: block, matrix))
                },
                activation: Activation(self.configuration.activation)
            )
            return FeedForwardSublayer(norm: norm, kind: .dense(dense))
        }
        let layer = SparseLayer(stack: stack, block: block)
        // The router computes in float32 whatever the others' type; its weights are few.
        let router = Router(
            weights: try self.loader.packed(.router(layer), storage: .float32),
            bias: self.configuration.routerBias ? try self.loader.floats(.routerBias(layer)) : nil
        )
        let sparse = SparseFeedForward(
            layer: layer,
            router: router,
            checkpointCapacity: self.configuration.expertCapacity,
            scalesByProbability: self.configuration.scalesByProbability,
            droppedTokens: self.configuration.droppedTokens
        )
        return FeedForwardSublayer(norm: norm, kind: .sparse(sparse))
    }
}
