// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// One encoder block: `x += attention(norm(x))`, `x += feedForward(norm(x))`.
struct EncoderBlock: Sendable {
    let attentionNorm: Norm
    let attention: EncoderAttention
    let feedForward: FeedForwardSublayer
}

/// One decoder block, which attends to the encoded sequence in between where there is one.
struct DecoderBlock: Sendable {
    let attentionNorm: Norm
    let attention: DecoderSelfAttention
    /// Nil in a model without an encoder.
    let cross: Cross?
    let feedForward: FeedForwardSublayer

    /// Attention to the encoded sequence, with its norm.
    struct Cross: Sendable {
        let norm: Norm
        let attention: CrossAttention
    }
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

    let norm: Norm
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

    func norm(_ role: TensorRole) throws -> Norm {
        let weights = try self.loader.floats(role)
        let epsilon = self.configuration.layerNormEpsilon
        switch self.configuration.design.norm {
        case .rootMeanSquare: return .rootMeanSquare(RMSNorm(weights: weights, epsilon: epsilon))
        case .layer:
            return .layer(
                LayerNorm(weights: weights, bias: try self.loader.floats(.bias(of: role)), epsilon: epsilon)
            )
        }
    }

    /// What a matrix adds to its outputs; nil in families without biases.
    func bias(of role: TensorRole) throws -> RowBias? {
        guard self.configuration.design.hasBiases else { return nil }
        return RowBias(values: try self.loader.floats(.bias(of: role)))
    }

    func relativeBias(_ stack: Stack) throws -> RelativeBias? {
        guard self.configuration.design.hasRelativeBias else { return nil }
        return RelativeBias(
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
            cross: self.configuration.design.isDecoderOnly ? nil : try self.cross(block),
            feedForward: try self.feedForward(.decoder, block)
        )
    }

    private func cross(_ block: Int) throws -> DecoderBlock.Cross {
        DecoderBlock.Cross(
            norm: try self.norm(.layerNorm(.decoder, block: block, .crossAttention)),
            attention: CrossAttention(
                weights: try self.attention(.decoder, block, .cross),
                headCount: self.configuration.headCount,
                keyWidth: self.configuration.keyWidth,
                block: block
            )
        )
    }

    private func attention(_ stack: Stack, _ block: Int, _ kind: AttentionKind) throws -> AttentionWeights {
        func role(_ projection: AttentionProjection) -> TensorRole {
            .attention(stack, block: block, kind, projection)
        }
        var weights = AttentionWeights(
            query: try self.loader.packed(role(.query)),
            key: try self.loader.packed(role(.key)),
            value: try self.loader.packed(role(.value)),
            output: try self.loader.packed(role(.output))
        )
        if let query = try self.bias(of: role(.query)), let key = try self.bias(of: role(.key)),
            let value = try self.bias(of: role(.value)), let output = try self.bias(of: role(.output))
        {
            weights.biases = AttentionWeights.Biases(query: query, key: key, value: value, output: output)
        }
        if self.configuration.design.scalesScores {
            weights.queryScale = Float(1 / Double(self.configuration.keyWidth).squareRoot())
        }
        return weights
    }

    private func feedForward(_ stack: Stack, _ block: Int) throws -> FeedForwardSublayer {
        let norm = try self.norm(.layerNorm(stack, block: block, .feedForward))
        guard self.configuration.isSparse(stack, block: block) else {
            let dense = FeedForward(
                weights: try self.loader.network(self.configuration) { .dense(stack, block: block, $0) },
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
            checkpointCapacity: self.configuration.checkpointCapacity,
            scalesByProbability: self.configuration.scalesByProbability,
            droppedTokens: self.configuration.droppedTokens
        )
        return FeedForwardSublayer(norm: norm, kind: .sparse(sparse))
    }
}
