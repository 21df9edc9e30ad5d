// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// What attention keeps for its backward pass.
struct AttentionActivations {
    let query: Rows
    let key: Rows
    let value: Rows
    /// `[heads, queries, keys]` of each sequence, before dropout; rows are padded as the kernels want them.
    let probabilities: UnsafeMutablePointer<Float>
    let context: Rows
}

/// Multi-head attention within each sequence: `softmax(q k^T + bias) v`, without the four linear layers and without a scale, which
/// is the queries'.
struct Attention {
    let run: PartRun
    let stack: Stack
    let block: Int
    let queries: SequenceRows
    let keys: SequenceRows
    /// The relative position bias of a self-attention layer; nil in cross-attention, and in families without one.
    let bias: RelativeBiasTable?
    let isCausal: Bool

    private var heads: Int { self.run.configuration.headCount }
    private var width: Int { self.run.configuration.keyWidth }

    private var dropout: Dropout? {
        self.run.dropout(
            self.bias == nil && self.run.configuration.design.hasRelativeBias
                ? .crossAttentionWeights : .selfAttentionWeights,
            self.stack,
            self.block
        )
    }

    /// Where each sequence's probabilities begin.
    private var offsets: [Int] {
        var next = 0
        return zip(self.queries.ranges, self.keys.ranges)
            .map { queries, keys in
                defer { next += self.heads * queries.count * ck_attention_row(keys.count) }
                return next
            }
    }

    /// Floats of all sequences' probabilities.
    var probabilityCount: Int {
        zip(self.queries.ranges, self.keys.ranges)
            .reduce(0) { $0 + self.heads * $1.0.count * ck_attention_row($1.1.count) }
    }

    /// Calls the body for each head of each sequence, all threads together, with scratch memory of its thread.
    private func forEach(
        _ stride: Int,
        extra: Int,
        body: (Int, Int, inout ck_attention, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>) -> Void
    ) {
        let run = self.run
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let own = ck_attention_floats(self.queries.longest, self.keys.longest, self.width)
        let floats = (own + extra + 31) / 16 * 16
        let parts = run.pool.threadCount
        let scratch = run.arena.floats(parts * floats)
        let dropout = self.dropout
        let units = self.queries.count * self.heads
        run.pool.run(parts) { range in
            for part in range {
                let memory = scratch + part * floats
                // Heads of one sequence go to different threads: they take the same time.
                for unit in Swift.stride(from: part, to: units, by: parts) {
                    let (sequence, head) = (unit / self.heads, unit % self.heads)
                    var attention = ck_attention()
                    attention.level = run.level.rawValue
                    attention.queries = self.queries.ranges[sequence].count
                    attention.keys = self.keys.ranges[sequence].count
                    attention.width = self.width
                    attention.stride = stride
                    attention.causal = self.isCausal ? 1 : 0
                    if let bias = self.bias {
                        attention.bias = UnsafePointer(bias.start(head: head, length: attention.queries))
                    }
                    dropout?.describe(to: &attention, sequence: self.queries.first + sequence, head: head)
                    body(sequence, head, &attention, memory, memory + (own + 15) / 16 * 16)
                }
            }
        }
    }

    /// Computes the contexts, and keeps the probabilities.
    func forward(query: Rows, key: Rows, value: Rows, probabilities: UnsafeMutablePointer<Float>, context: Rows) {
        let offsets = self.offsets
        self.forEach(query.stride, extra: 0) { sequence, head, attention, scratch, _ in
            let first = self.queries.ranges[sequence].lowerBound
            let firstKey = self.keys.ranges[sequence].lowerBound
            let column = head * self.width
            let size = attention.queries * ck_attention_row(attention.keys)
            ck_attention_forward(
                &attention,
                query.row(first) + column,
                key.row(firstKey) + column,
                value.row(firstKey) + column,
                probabilities + offsets[sequence] + head * size,
                context.row(first) + column,
                scratch
            )
        }
    }

    /// Computes the gradients of queries, keys and values, and adds the bias's to the step's sums.
    func backward(
        _ kept: AttentionActivations,
        contextGradient: Rows,
        queryGradient: Rows,
        keyGradient: Rows,
        valueGradient: Rows
    ) {
        let offsets = self.offsets
        let buckets = self.run.configuration.relativeBuckets
        let mark = self.run.arena.mark
        defer { self.run.arena.release(to: mark) }
        let sums = self.bias.map { _ in self.run.arena.zeroDoubles(self.queries.count * self.heads * buckets) }
        let columns = 2 * max(self.queries.longest, 1)
        self.forEach(kept.query.stride, extra: 2 * columns) { sequence, head, attention, scratch, extra in
            let first = self.queries.ranges[sequence].lowerBound
            let firstKey = self.keys.ranges[sequence].lowerBound
            let column = head * self.width
            let size = attention.queries * ck_attention_row(attention.keys)
            let length = attention.queries
            var diagonals: UnsafeMutablePointer<Double>?
            if sums != nil {
                let memory = UnsafeMutableRawPointer(extra).bindMemory(to: Double.self, capacity: columns)
                memory.update(repeating: 0, count: columns)
                diagonals = memory
            }
            ck_attention_backward(
                &attention,
                kept.query.row(first) + column,
                kept.key.row(firstKey) + column,
                kept.value.row(firstKey) + column,
                kept.probabilities + offsets[sequence] + head * size,
                contextGradient.row(first) + column,
                queryGradient.row(first) + column,
                keyGradient.row(firstKey) + column,
                valueGradient.row(firstKey) + column,
                diagonals,
                scratch
            )
            guard let sums, let diagonals, let bias = self.bias else { return }
            let target = sums + (sequence * self.heads + head) * buckets
            for diagonal in 0..<max(2 * length - 1, 0) {
                target[bias.buckets[bias.longest - length + diagonal]] += diagonals[diagonal]
            }
        }
        guard let sums else { return }
        let count = self.heads * buckets
        for sequence in 0..<self.queries.count {
            self.run.sums.addBias(self.stack, block: self.block, sums + sequence * count, count: count)
        }
    }
}
