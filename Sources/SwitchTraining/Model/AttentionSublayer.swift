// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// What an attention sublayer keeps for its backward pass.
struct AttentionSublayerActivations {
    let input: Rows
    let normed: Rows
    let attention: AttentionActivations
}

/// Norm, attention and residual: `y = x + dropout(o attention(q n, k m, v m))` with `n = norm(x)`, and `m` the same, or the
/// encoder's output in cross-attention.
///
/// In families that scale scores, `q n` is multiplied by `keyWidth^-0.5` once its bias is added.
struct AttentionSublayer {
    let run: PartRun
    let parameters: AttentionParameters
    let attention: Attention
    /// The encoder's output; nil in self-attention.
    let memory: Rows?
    let dropout: Dropout?

    init(
        _ run: PartRun,
        _ block: BlockParameters,
        queries: SequenceRows,
        bias: RelativeBiasTable?,
        memory: (rows: Rows, sequences: SequenceRows)?
    ) {
        let isCross = memory != nil
        self.run = run
        self.parameters = block.crossAttention.flatMap { isCross ? $0 : nil } ?? block.selfAttention
        self.memory = memory?.rows
        self.attention = Attention(
            run: run,
            stack: block.stack,
            block: block.block,
            queries: queries,
            keys: memory?.sequences ?? queries,
            bias: isCross ? nil : bias,
            isCausal: block.stack == .decoder && !isCross
        )
        self.dropout = run.dropout(isCross ? .crossAttention : .selfAttention, block.stack, block.block)
    }

    /// What queries are multiplied with.
    private var queryScale: Float {
        let configuration = self.run.configuration
        return configuration.design.scalesScores ? Float(1 / Double(configuration.keyWidth).squareRoot()) : 1
    }

    func forward(_ input: Rows, into output: Rows) -> AttentionSublayerActivations {
        let (run, weights) = (self.run, self.parameters)
        let width = weights.query.outputs
        let normed = run.arena.rows(input.count, columns: input.columns)
        Norm.forward(run, weights.norm, input, into: normed)
        let memory = self.memory ?? normed
        let query = run.arena.rows(input.count, columns: width)
        let key = run.arena.rows(memory.count, columns: width)
        let value = run.arena.rows(memory.count, columns: width)
        run.pool.multiply(
            [
                Linear.forward(run, weights.query, normed, into: query),
                Linear.forward(run, weights.key, memory, into: key),
                Linear.forward(run, weights.value, memory, into: value),
            ],
            level: run.level
        )
        // Every family that scales scores has biases.
        Linear.addBias(run, weights.query, to: query, scale: self.queryScale)
        Linear.addBias(run, weights.key, to: key)
        Linear.addBias(run, weights.value, to: value)
        for rows in [query, key, value] { run.settle(rows) }
        let probabilities = run.arena.floats(self.attention.probabilityCount)
        let context = run.arena.rows(input.count, columns: width)
        self.attention.forward(query: query, key: key, value: value, probabilities: probabilities, context: context)
        run.settle(context)
        if run.rounds {
            run.share(self.attention.probabilityCount, width: 1) { range in
                Rounding.round(probabilities + range.lowerBound, count: range.count)
            }
        }
        run.pool.multiply([Linear.forward(run, weights.output, context, into: output)], level: run.level)
        Linear.addBias(run, weights.output, to: output)
        ResidualJoin.join(run, input, self.dropout, self.attention.queries, output)
        let kept = AttentionActivations(
            query: query,
            key: key,
            value: value,
            probabilities: probabilities,
            context: context
        )
        return AttentionSublayerActivations(input: input, normed: normed, attention: kept)
    }

    /// Turns the gradient of the output, in `gradient`, into that of the input, and adds the encoder's.
    func backward(
        _ kept: AttentionSublayerActivations,
        gradient: Rows,
        memoryGradient: Rows?,
        gradients: Gradients
    ) {
        let (run, weights) = (self.run, self.parameters)
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let outer = ResidualJoin.dropped(run, gradient, self.dropout, self.attention.queries)
        let memory = self.memory ?? kept.normed
        let width = weights.query.outputs
        let context = run.arena.rows(gradient.count, columns: width)
        let query = run.arena.rows(gradient.count, columns: width)
        let key = run.arena.rows(memory.count, columns: width)
        let value = run.arena.rows(memory.count, columns: width)
        let normed = run.arena.rows(gradient.count, columns: gradient.columns)
        run.pool.multiply(
            [
                Linear.inputGradient(run, weights.output, outer, into: context),
                Linear.weightGradient(gradients, weights.output, outer, kept.attention.context),
            ],
            level: run.level
        )
        Linear.biasGradient(run, gradients, weights.output, outer)
        run.settle(context)
        self.attention.backward(
            kept.attention,
            contextGradient: context,
            queryGradient: query,
            keyGradient: key,
            valueGradient: value
        )
        let scale = self.queryScale
        if scale != 1 {
            run.share(query.count, width: width) { range in
                for row in range {
                    Residual.scale(query.row(row), by: scale, count: width, into: query.row(row))
                }
            }
        }
        for rows in [query, key, value] { run.settle(rows) }
        for (weight, rows) in [(weights.query, query), (weights.key, key), (weights.value, value)] {
            Linear.biasGradient(run, gradients, weight, rows)
        }
        // Keys and values add to the gradient of what they were made of: their own rows, or the encoder's.
        let target = memoryGradient ?? normed
        run.pool.multiply(
            [
                Linear.inputGradient(run, weights.query, query, into: normed),
                Linear.weightGradient(gradients, weights.query, query, kept.normed),
                Linear.weightGradient(gradients, weights.key, key, memory),
                Linear.weightGradient(gradients, weights.value, value, memory),
            ],
            level: run.level
        )
        run.pool.multiply(
            [Linear.inputGradient(run, weights.key, key, into: target, accumulates: true)],
            level: run.level
        )
        run.pool.multiply(
            [Linear.inputGradient(run, weights.value, value, into: target, accumulates: true)],
            level: run.level
        )
        run.settle(normed)
        run.settle(memoryGradient)
        Norm.backward(
            run,
            weights.norm,
            input: kept.input,
            outputGradient: normed,
            sequences: self.attention.queries,
            inputGradient: gradient
        )
    }
}

/// What all sublayers have in common: dropout and the residual.
enum ResidualJoin {
    /// `output = input + dropout(output)`.
    static func join(_ run: PartRun, _ input: Rows, _ dropout: Dropout?, _ sequences: SequenceRows, _ output: Rows) {
        run.share(input.count, width: input.columns) { range in
            for row in range {
                dropout?.apply(output.row(row), count: input.columns, place: sequences.place(row))
                Residual.add(input.row(row), to: output.row(row), count: input.columns)
                run.settle(output.row(row), count: input.columns)
            }
        }
    }

    /// The gradient of a sublayer's output before its dropout: the gradient itself where there is none.
    static func dropped(_ run: PartRun, _ gradient: Rows, _ dropout: Dropout?, _ sequences: SequenceRows) -> Rows {
        guard let dropout else { return gradient }
        let copy = run.arena.rows(gradient.count, columns: gradient.columns)
        run.share(gradient.count, width: 4 * gradient.columns) { range in
            for row in range {
                copy.row(row).update(from: gradient.row(row), count: gradient.columns)
                dropout.apply(copy.row(row), count: gradient.columns, place: sequences.place(row))
                run.settle(copy.row(row), count: gradient.columns)
            }
        }
        return copy
    }
}
