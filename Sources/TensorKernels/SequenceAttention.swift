// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Attention of one head over a whole sequence: `softmax(queries keys^T + bias) values`.
///
/// Every element of the scores and of the contexts is one chain of fused multiply-adds in ascending order, as in
/// ``Product``. So the bits depend on the sequence alone: not on which queries are computed together, nor on the processor.
public struct SequenceAttention {
    /// Number of keys, and of values.
    public let keys: Int

    /// Elements of a query, a key and a value.
    public let width: Int

    /// Elements between the starts of two queries, keys, values and contexts.
    public let stride: Int

    private let scratch: UnsafeMutablePointer<Float>

    /// Floats of scratch memory for some queries and keys at most.
    public static func scratchFloats(queries: Int, keys: Int, width: Int) -> Int {
        ck_sequence_floats(queries, keys, width)
    }

    /// Packs a head's keys and values, which need not be kept after that.
    ///
    /// - Parameters:
    ///   - keys: `count` rows of `width` floats.
    ///   - values: `count` rows of `width` floats.
    ///   - count: Number of keys.
    ///   - stride: Elements between the starts of two rows.
    ///   - width: Elements of a row.
    ///   - scratch: Memory of ``scratchFloats(queries:keys:width:)`` floats, used as long as this value is.
    public init(
        keys: UnsafePointer<Float>,
        values: UnsafePointer<Float>,
        count: Int,
        stride: Int,
        width: Int,
        scratch: UnsafeMutablePointer<Float>
    ) {
        self.keys = count
        self.width = width
        self.stride = stride
        self.scratch = scratch
        ck_sequence_keep(keys, values, stride, count, width, scratch)
    }

    /// Computes the contexts of some queries.
    ///
    /// - Parameters:
    ///   - queries: `count` rows.
    ///   - count: Number of queries, at most as many as the scratch memory has room for.
    ///   - bias: What is added to the first query's scores; each further query's biases begin one float before those of
    ///     the query before it. Nil for none.
    ///   - contexts: Room for `count` rows; overwritten.
    ///   - level: The instruction set; the bits are the same for all.
    public func attend(
        _ queries: UnsafePointer<Float>,
        count: Int,
        bias: UnsafePointer<Float>?,
        into contexts: UnsafeMutablePointer<Float>,
        level: KernelLevel = .best
    ) {
        ck_sequence_attend(
            level.rawValue,
            queries,
            self.stride,
            count,
            self.keys,
            self.width,
            bias,
            contexts,
            self.scratch
        )
    }
}
