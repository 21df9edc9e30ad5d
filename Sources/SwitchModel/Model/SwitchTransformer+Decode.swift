// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import TensorKernels

/// New tokens for one decoder row.
public struct DecoderInput {
    /// What the row remembers; the call adds the tokens to it.
    public var cache: DecoderCache

    /// Token ids, at least one: the start token first of all, then what was generated, or many at once.
    public var tokens: [Int32]

    /// Describes a row's new tokens.
    ///
    /// - Parameters:
    ///   - cache: What the row remembers; the call adds the tokens to it.
    ///   - tokens: Token ids, at least one.
    public init(cache: DecoderCache, tokens: [Int32]) {
        self.cache = cache
        self.tokens = tokens
    }
}

extension SwitchTransformer {
    /// Runs the decoder over new tokens of some rows, whatever their lengths so far.
    ///
    /// A row's result does not depend on the other rows. Where the call throws, no cache has changed.
    ///
    /// - Parameters:
    ///   - rows: New tokens and the caches they belong to, each cache once.
    ///   - experts: Where the experts are.
    ///   - options: How to run the call.
    ///   - record: Counts what happens to the tokens; sequences are named by their index in `rows`.
    /// - Returns: Logits `[rows, vocabulary]` of each row's last token, or `[tokens, vocabulary]` of all tokens where
    ///   the options say so.
    /// - Throws: `ModelError` for rows without tokens, unknown ids and caches named twice; what the executor throws.
    public func decode(
        _ rows: [DecoderInput],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions(),
        record: inout RoutingRecord
    ) throws -> FloatMatrix {
        try self.requireValid(rows)
        var positions: [DecoderPosition] = []
        var last: [Int] = []
        for (index, row) in rows.enumerated() {
            for offset in row.tokens.indices {
                positions.append(DecoderPosition(row: index, position: row.cache.length + offset))
            }
            last.append(positions.count - 1)
            row.cache.reserve(row.tokens.count)
        }
        let step = StepContext(
            options: options,
            experts: experts,
            pool: self.pool,
            sequences: positions.map { Int32($0.row) }
        )
        let caches = rows.map(\.cache)
        let sequences = caches.map(\.sequence)
        let longest = (positions.map(\.position).max() ?? 0) + 1
        let bias = self.decoderBias.span(length: longest)

        var hidden = self.embedding(rows.flatMap(\.tokens))
        for block in self.decoderBlocks {
            if options.collectHiddenStates {
                record.append(hiddenState: hidden, stack: .decoder)
            }
            let attended = block.attention(
                block.attentionNorm(hidden),
                positions: positions,
                caches: caches,
                bias: bias,
                pool: self.pool
            )
            hidden = Residual.add(hidden, attended)
            let crossed = block.cross(
                block.crossNorm(hidden),
                positions: positions,
                sequences: sequences,
                pool: self.pool
            )
            hidden = Residual.add(hidden, crossed)
            hidden = try block.feedForward(hidden, step: step, record: &record)
        }
        for row in rows {
            row.cache.advance(by: row.tokens.count)
        }
        if options.collectHiddenStates {
            record.append(hiddenState: self.decoderNorm(hidden), stack: .decoder)
        }
        return self.logits(options.logits == .all ? hidden : hidden.gather(last))
    }

    /// Projects the last block's output onto the vocabulary.
    private func logits(_ hidden: FloatMatrix) -> FloatMatrix {
        let normed = self.decoderNorm(hidden)
        if self.headScale != 1 {
            Residual.scale(
                normed.pointer,
                by: self.headScale,
                count: normed.rows * normed.columns,
                into: normed.pointer
            )
        }
        let logits = FloatMatrix(uninitializedRows: normed.rows, columns: self.head.outputs)
        self.pool.run([Product(self.head, normed, into: logits)])
        return logits
    }

    private func requireValid(_ rows: [DecoderInput]) throws(ModelError) {
        var seen: Set<ObjectIdentifier> = []
        for (index, row) in rows.enumerated() {
            try self.requireKnown(row.tokens, input: index)
            guard row.cache.sequence.crossKeys.count == self.decoderBlocks.count,
                row.cache.sequence.hidden.columns == self.configuration.modelWidth
            else {
                throw ModelError(
                    code: .invalidInput,
                    message: "row \(index) was encoded by another model; encode it with this one"
                )
            }
            guard seen.insert(ObjectIdentifier(row.cache)).inserted else {
                throw ModelError(
                    code: .invalidInput,
                    message: "row \(index) names a cache that an earlier row names too; fork the cache instead"
                )
            }
        }
    }
}
