// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// What a stack keeps for its backward pass.
struct StackActivations {
    /// Each block's input, and the last one's output.
    let boundaries: [Rows]
    /// What each block keeps; nil where it is computed again.
    let blocks: [BlockActivations?]
    /// Where each sparse block's tokens went.
    let plans: [RoutePlan?]
    /// What each block keeps, as bfloat16 numbers; nil where it is kept as it is, or computed again.
    let packed: [PackedActivations?]
    let bias: RelativeBiasTable?
    /// The final norm's output, after dropout.
    let output: Rows
}

/// One stack over a part's rows: embedding, blocks, final norm.
struct StackPass {
    let run: PartRun
    let parameters: ModelParameters
    let stack: Stack
    let tokens: [Int32]
    let sequences: SequenceRows
    let firstRow: Int
    let memory: (rows: Rows, sequences: SequenceRows)?

    private var width: Int { self.run.configuration.modelWidth }
    private var blocks: [BlockParameters] { self.parameters.blocks[self.stack] ?? [] }
    private var finalNorm: NormParameters { self.parameters.finalNorm[self.stack] ?? NormParameters(weight: 0) }

    /// The dropout of embeddings or of final rows, which models without an encoder do not have: labml drops within blocks only.
    private func dropout(_ kind: RandomSite.Kind) -> Dropout? {
        self.run.configuration.design.isDecoderOnly ? nil : self.run.dropout(kind, self.stack, 0)
    }

    private func pass(_ run: PartRun, _ block: BlockParameters, bias: RelativeBiasTable?) -> BlockPass {
        BlockPass(
            run: run,
            parameters: block,
            sequences: self.sequences,
            firstRow: self.firstRow,
            bias: bias,
            memory: self.memory
        )
    }

    func forward(keeping: Bool) -> StackActivations {
        let run = self.run
        let bias =
            run.configuration.design.hasRelativeBias
            ? RelativeBiasTable(run, self.parameters, stack: self.stack, longest: self.sequences.longest) : nil
        let count = self.sequences.rowCount
        var boundaries = [run.arena.rows(count, columns: self.width)]
        Embedding.forward(run, self.parameters.embedding, tokens: self.tokens, into: boundaries[0])
        if let dropout = self.dropout(.embedding) {
            dropout.apply(boundaries[0], self.sequences, pool: run.pool)
            run.settle(boundaries[0])
        }
        let isKeeping = keeping && !run.settings.recomputesBlocks
        let inner = isKeeping && run.rounds ? run.packing : run
        var packed: [PackedActivations?] = []
        var kept: [BlockActivations?] = []
        var plans: [RoutePlan?] = []
        for block in self.blocks {
            let output = run.arena.rows(count, columns: self.width)
            let mark = run.arena.mark
            let activations = self.pass(inner, block, bias: bias)
                .forward(boundaries[boundaries.count - 1], into: output)
            plans.append(activations.sparse?.plan)
            boundaries.append(output)
            packed.append(isKeeping && run.rounds ? run.packs.pack(into: run.arena) : nil)
            if isKeeping {
                kept.append(activations)
            } else {
                run.arena.release(to: mark)
                kept.append(nil)
            }
        }
        let output = run.arena.rows(count, columns: self.width)
        Norm.forward(run, self.finalNorm, boundaries[boundaries.count - 1], into: output)
        if let dropout = self.dropout(.final) {
            dropout.apply(output, self.sequences, pool: run.pool)
            run.settle(output)
        }
        return StackActivations(
            boundaries: boundaries,
            blocks: kept,
            plans: plans,
            packed: packed,
            bias: bias,
            output: output
        )
    }

    /// Adds all gradients, given that of the output, which is overwritten; the encoder's goes to `memoryGradient`.
    func backward(_ kept: StackActivations, outputGradient: Rows, memoryGradient: Rows?, gradients: Gradients) {
        let run = self.run
        if let dropout = self.dropout(.final) {
            dropout.apply(outputGradient, self.sequences, pool: run.pool)
            run.settle(outputGradient)
        }
        let gradient = run.arena.rows(outputGradient.count, columns: self.width)
        for row in 0..<gradient.count { gradient.row(row).update(repeating: 0, count: self.width) }
        Norm.backward(
            run,
            self.finalNorm,
            input: kept.boundaries[kept.boundaries.count - 1],
            outputGradient: outputGradient,
            sequences: self.sequences,
            inputGradient: gradient
        )
        for (index, block) in self.blocks.enumerated().reversed() {
            let packed = kept.packed[index]
            if let packed { run.packs.unpack(packed) }
            defer { if packed != nil { run.packs.restart() } }
            let pass = self.pass(packed == nil ? run : run.packing, block, bias: kept.bias)
            let mark = run.arena.mark
            let activations: BlockActivations
            if let block = kept.blocks[index] {
                activations = block
            } else {
                let output = run.arena.rows(gradient.count, columns: self.width)
                activations = pass.forward(kept.boundaries[index], into: output, known: kept.plans[index])
            }
            pass.backward(
                activations,
                gradient: gradient,
                memoryGradient: memoryGradient,
                gradients: gradients
            )
            run.arena.release(to: mark)
        }
        self.dropout(.embedding)?.apply(gradient, self.sequences, pool: run.pool)
        run.sums.embeddings[self.stack]?.add(gradient, tokens: self.tokens, pool: run.pool)
    }
}
