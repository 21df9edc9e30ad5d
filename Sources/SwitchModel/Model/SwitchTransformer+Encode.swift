// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import TensorKernels

extension SwitchTransformer {
    /// Runs the encoder over sequences of any lengths, concatenated and never padded.
    ///
    /// - Parameters:
    ///   - inputs: Token ids of each sequence, at least one each.
    ///   - experts: Where the experts are.
    ///   - options: How to run the call; `logits` has no meaning here.
    ///   - record: Counts what happens to the tokens; sequences are named by their index in `inputs`.
    /// - Returns: The encoded sequences, in the order of the inputs.
    /// - Throws: `ModelError` for empty sequences and unknown ids; what the executor throws.
    public func encode(
        _ inputs: [[Int32]],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions(),
        record: inout RoutingRecord
    ) throws -> [EncodedSequence] {
        for (index, tokens) in inputs.enumerated() {
            try self.requireKnown(tokens, input: index)
        }
        guard let longest = inputs.map(\.count).max() else {
            return []
        }
        let lengths = inputs.map(\.count)
        let step = StepContext(
            options: options,
            experts: experts,
            pool: self.pool,
            sequences: inputs.enumerated().flatMap { [Int32](repeating: Int32($0), count: $1.count) }
        )
        let bias = self.encoderBias.span(length: longest)
        var hidden = self.embedding(inputs.flatMap { $0 })
        for block in self.encoderBlocks {
            if options.collectHiddenStates {
                record.append(hiddenState: hidden, stack: .encoder)
            }
            let attended = block.attention(block.attentionNorm(hidden), lengths: lengths, bias: bias, pool: self.pool)
            hidden = Residual.add(hidden, attended)
            hidden = try block.feedForward(hidden, step: step, record: &record)
        }
        hidden = self.encoderNorm(hidden)
        if options.collectHiddenStates {
            record.append(hiddenState: hidden, stack: .encoder)
        }
        return self.encodedSequences(hidden, lengths: lengths)
    }

    /// Cuts the encoder's output into sequences and computes the decoder's cross keys and values.
    private func encodedSequences(_ hidden: FloatMatrix, lengths: [Int]) -> [EncodedSequence] {
        var keys = [[FloatMatrix]](repeating: [], count: lengths.count)
        var values = [[FloatMatrix]](repeating: [], count: lengths.count)
        for block in self.decoderBlocks {
            let weights = block.cross.weights
            let allKeys = FloatMatrix(uninitializedRows: hidden.rows, columns: weights.key.outputs)
            let allValues = FloatMatrix(uninitializedRows: hidden.rows, columns: weights.value.outputs)
            self.pool.run([
                Product(weights.key, hidden, into: allKeys), Product(weights.value, hidden, into: allValues),
            ])
            for (index, (key, value)) in zip(allKeys.cut(into: lengths), allValues.cut(into: lengths)).enumerated() {
                keys[index].append(key)
                values[index].append(value)
            }
        }
        return hidden.cut(into: lengths).enumerated()
            .map { index, rows in
                EncodedSequence(hidden: rows, crossKeys: keys[index], crossValues: values[index])
            }
    }
}

extension FloatMatrix {
    /// Copies consecutive rows into matrices of their own; the matrix itself where there is one part.
    func cut(into lengths: [Int]) -> [FloatMatrix] {
        if lengths.count == 1, lengths[0] == self.rows {
            return [self]
        }
        var start = 0
        return lengths.map { length in
            let part = FloatMatrix(uninitializedRows: length, columns: self.columns)
            part.pointer.update(from: self.pointer + start * self.columns, count: length * self.columns)
            start += length
            return part
        }
    }

    /// Copies some rows.
    func gather(_ rows: [Int]) -> FloatMatrix {
        let output = FloatMatrix(uninitializedRows: rows.count, columns: self.columns)
        for (index, row) in rows.enumerated() {
            (output.pointer + index * self.columns).update(from: self.pointer + row * self.columns, count: self.columns)
        }
        return output
    }
}
