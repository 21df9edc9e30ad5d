// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import TensorKernels

/// A decoder token's place: its row's cache, and its position.
struct DecoderPosition: Sendable {
    let row: Int
    let position: Int
}

/// The queries of a decoder call, cut into one part for each thread so that all have about as many keys to read.
///
/// They are taken row by row, then head by head, then in the order of the row's tokens: tokens that come together read a
/// head's keys and values while these are in the caches. A prompt's last tokens see the most keys, and rows differ in length,
/// so that as many queries would not be as much work.
struct DecoderShare {
    /// The place of each token; a row's tokens are consecutive.
    let positions: [DecoderPosition]
    let headCount: Int

    /// What a query costs besides its keys: about as much as this number of them.
    private static let queryCost = 16

    /// Whether each row has one token, as in a step of generation.
    var hasOneTokenPerRow: Bool {
        for token in self.positions.indices.dropFirst()
        where self.positions[token].row == self.positions[token - 1].row {
            return false
        }
        return true
    }

    /// Computes all queries.
    ///
    /// - Parameters:
    ///   - pool: Threads that share the work.
    ///   - keys: How many keys a token sees.
    ///   - body: Computes some consecutive tokens' queries of a row and a head, with scratch memory for ``KeptAttention``.
    func run(
        on pool: WorkPool,
        keys: (DecoderPosition) -> Int,
        body: (_ row: Int, _ head: Int, _ tokens: Range<Int>, UnsafeMutablePointer<Float>) -> Void
    ) {
        var (cost, most) = (0, 0)
        for token in self.positions.indices {
            let count = keys(self.positions[token])
            cost += (count + Self.queryCost) * self.headCount
            most = max(most, count)
        }
        pool.runWithScratch(cost, floats: KeptAttention.scratchFloats(keys: most)) { costs, scratch in
            self.forEach(in: costs, keys: keys) { body($0, $1, $2, scratch) }
        }
    }

    /// Names the tokens whose costs begin in a range, for each row and head that has some.
    private func forEach(
        in costs: Range<Int>,
        keys: (DecoderPosition) -> Int,
        body: (_ row: Int, _ head: Int, _ tokens: Range<Int>) -> Void
    ) {
        var start = 0
        var first = 0
        while first < self.positions.count, start < costs.upperBound {
            let row = self.positions[first].row
            var end = first
            var rowCost = 0
            while end < self.positions.count, self.positions[end].row == row {
                rowCost += keys(self.positions[end]) + Self.queryCost
                end += 1
            }
            for head in 0..<self.headCount {
                var place = start + head * rowCost
                guard place + rowCost > costs.lowerBound, place < costs.upperBound else { continue }
                if place >= costs.lowerBound, place + rowCost <= costs.upperBound {
                    body(row, head, first..<end)
                    continue
                }
                var low = first
                while low < end, place < costs.lowerBound {
                    place += keys(self.positions[low]) + Self.queryCost
                    low += 1
                }
                var high = low
                while high < end, place < costs.upperBound {
                    place += keys(self.positions[high]) + Self.queryCost
                    high += 1
                }
                if low < high { body(row, head, low..<high) }
            }
            start += self.headCount * rowCost
            first = end
        }
    }
}

/// The decoder's causal self-attention over cached keys and values.
///
/// Each token of each head is computed as if it were alone, in the order of its keys. So a token's output does not depend
/// on its neighbours, nor on whether a row's tokens came one by one or together.
struct DecoderSelfAttention {
    let weights: AttentionWeights
    let headCount: Int
    let keyWidth: Int
    let block: Int

    /// Computes the sublayer without its residual, and puts the tokens' keys and values into their caches.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - positions: The place of each token.
    ///   - caches: One per row, with room for the tokens.
    ///   - bias: Biases up to the highest position; nil in a model without them.
    ///   - pool: Threads that share the work.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(
        _ input: FloatMatrix,
        positions: [DecoderPosition],
        caches: [DecoderCache],
        bias: RelativeBias.Span?,
        pool: WorkPool
    ) -> FloatMatrix {
        let inner = self.weights.innerWidth
        let queries = FloatMatrix.temporary(rows: input.rows, columns: inner)
        let keys = FloatMatrix.temporary(rows: input.rows, columns: inner)
        let values = FloatMatrix.temporary(rows: input.rows, columns: inner)
        self.weights.project(input, queries: queries, keys: keys, values: values, pool: pool)
        let context = FloatMatrix.temporary(rows: input.rows, columns: inner)
        let share = DecoderShare(positions: positions, headCount: self.headCount)
        let isStep = share.hasOneTokenPerRow
        func store(token: Int, head: Int) {
            let offset = token * inner + head * self.keyWidth
            let place = positions[token]
            caches[place.row]
                .store(
                    keys: keys.pointer + offset,
                    values: values.pointer + offset,
                    block: self.block,
                    head: head,
                    position: place.position
                )
        }
        if !isStep {
            WorkPool.share(positions.count, width: 2 * inner, among: pool) { tokens in
                for token in tokens {
                    for head in 0..<self.headCount { store(token: token, head: head) }
                }
            }
        }
        func keyCount(_ place: DecoderPosition) -> Int { place.position + 1 }
        share.run(on: pool, keys: keyCount) { row, head, tokens, scratch in
            let first = positions[tokens.lowerBound].position
            let offset = tokens.lowerBound * inner + head * self.keyWidth
            // No other thread reads this head of the row.
            if isStep { store(token: tokens.lowerBound, head: head) }
            caches[row]
                .withHead(head, block: self.block) { kept in
                    KeptAttention.attend(
                        kept,
                        queries: queries.pointer + offset,
                        stride: inner,
                        count: tokens.count,
                        keys: first + 1,
                        step: 1,
                        bias: bias?.row(head: head, position: first),
                        scratch: scratch,
                        into: context.pointer + offset
                    )
                }
        }
        let output = FloatMatrix.temporary(rows: input.rows, columns: self.weights.output.outputs)
        self.weights.finish(context, into: output, pool: pool)
        return output
    }
}

/// The decoder's attention over an encoded sequence, whose keys and values were computed when it was encoded.
///
/// It has no position bias.
struct CrossAttention {
    let weights: AttentionWeights
    let headCount: Int
    let keyWidth: Int
    let block: Int

    /// Computes the sublayer without its residual.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - positions: The place of each token.
    ///   - sequences: The encoded sequence of each row.
    ///   - pool: Threads that share the work.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(
        _ input: FloatMatrix,
        positions: [DecoderPosition],
        sequences: [EncodedSequence],
        pool: WorkPool
    ) -> FloatMatrix {
        let inner = self.weights.innerWidth
        let queries = FloatMatrix.temporary(rows: input.rows, columns: inner)
        pool.run(Product(self.weights.query, input, into: queries))
        let context = FloatMatrix.temporary(rows: input.rows, columns: inner)
        let share = DecoderShare(positions: positions, headCount: self.headCount)
        func keyCount(_ place: DecoderPosition) -> Int { sequences[place.row].tokenCount }
        share.run(on: pool, keys: keyCount) { row, head, tokens, scratch in
            let offset = tokens.lowerBound * inner + head * self.keyWidth
            sequences[row]
                .withHead(head, block: self.block) { kept in
                    KeptAttention.attend(
                        kept,
                        queries: queries.pointer + offset,
                        stride: inner,
                        count: tokens.count,
                        keys: sequences[row].tokenCount,
                        step: 0,
                        bias: nil,
                        scratch: scratch,
                        into: context.pointer + offset
                    )
                }
        }
        let output = FloatMatrix.temporary(rows: input.rows, columns: self.weights.output.outputs)
        self.weights.finish(context, into: output, pool: pool)
        return output
    }
}
