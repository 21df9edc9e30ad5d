// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// What a block keeps for its backward pass.
struct BlockActivations {
    let selfAttention: AttentionSublayerActivations
    let crossAttention: AttentionSublayerActivations?
    /// The feed-forward sublayer's input and norm.
    let input: Rows
    let normed: Rows
    let dense: FeedForwardActivations?
    let sparse: SparseActivations?
}

/// One block, forward and backward.
struct BlockPass {
    let run: PartRun
    let parameters: BlockParameters
    let sequences: SequenceRows
    let firstRow: Int
    let bias: RelativeBiasTable?
    /// The encoder's output, for a decoder's block of a model with an encoder.
    let memory: (rows: Rows, sequences: SequenceRows)?

    private var selfAttention: AttentionSublayer {
        AttentionSublayer(self.run, self.parameters, queries: self.sequences, bias: self.bias, memory: nil)
    }

    private var crossAttention: AttentionSublayer? {
        self.memory.map { memory in
            AttentionSublayer(self.run, self.parameters, queries: self.sequences, bias: self.bias, memory: memory)
        }
    }

    private var outerDropout: Dropout? {
        self.run.dropout(.feedForward, self.parameters.stack, self.parameters.block)
    }

    private func dense(_ parameters: FeedForwardParameters) -> FeedForwards {
        FeedForwards(
            run: self.run,
            groups: [FeedForwards.Group(parameters: parameters, rows: 0..<self.sequences.rowCount)],
            dropout: self.run.dropout(.inner, self.parameters.stack, self.parameters.block),
            place: { self.sequences.place($0) }
        )
    }

    private func sparse(_ parameters: SparseParameters) -> SparseLayerPass {
        SparseLayerPass(run: self.run, parameters: parameters, sequences: self.sequences, firstRow: self.firstRow)
    }

    /// Computes the block; `known` is the plan of its sparse layer, where it is computed again.
    func forward(_ input: Rows, into output: Rows, known: RoutePlan? = nil) -> BlockActivations {
        let run = self.run
        let attended = run.arena.rows(input.count, columns: input.columns)
        let own = self.selfAttention.forward(input, into: attended)
        var middle = attended
        var cross: AttentionSublayerActivations?
        if let crossAttention = self.crossAttention {
            middle = run.arena.rows(input.count, columns: input.columns)
            cross = crossAttention.forward(attended, into: middle)
        }
        let normed = run.arena.rows(input.count, columns: input.columns)
        Norm.forward(run, self.parameters.norm, middle, into: normed)
        var dense: FeedForwardActivations?
        var sparse: SparseActivations?
        if let parameters = self.parameters.dense {
            dense = self.dense(parameters).forward(normed, into: output)
        } else if let parameters = self.parameters.sparse {
            sparse = self.sparse(parameters).forward(normed, into: output, known: known)
        }
        ResidualJoin.join(run, middle, self.outerDropout, self.sequences, output)
        return BlockActivations(
            selfAttention: own,
            crossAttention: cross,
            input: middle,
            normed: normed,
            dense: dense,
            sparse: sparse
        )
    }

    /// Turns the gradient of the output, in `gradient`, into that of the input, and adds the encoder's.
    func backward(_ kept: BlockActivations, gradient: Rows, memoryGradient: Rows?, gradients: Gradients) {
        let run = self.run
        let mark = run.arena.mark
        let outer = ResidualJoin.dropped(run, gradient, self.outerDropout, self.sequences)
        let normed = run.arena.rows(gradient.count, columns: gradient.columns)
        if let parameters = self.parameters.dense, let dense = kept.dense {
            self.dense(parameters).backward(dense, outputGradient: outer, inputGradient: normed, gradients: gradients)
        } else if let parameters = self.parameters.sparse, let sparse = kept.sparse {
            self.sparse(parameters)
                .backward(
                    sparse,
                    outputGradient: outer,
                    inputGradient: normed,
                    gradients: gradients
                )
        }
        run.settle(normed)
        Norm.backward(
            run,
            self.parameters.norm,
            input: kept.input,
            outputGradient: normed,
            sequences: self.sequences,
            inputGradient: gradient
        )
        run.arena.release(to: mark)
        if let crossAttention = self.crossAttention, let cross = kept.crossAttention {
            crossAttention.backward(cross, gradient: gradient, memoryGradient: memoryGradient, gradients: gradients)
        }
        self.selfAttention.backward(
            kept.selfAttention,
            gradient: gradient,
            memoryGradient: nil,
            gradients: gradients
        )
    }
}
