// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import SwitchyardTypes

/// The two products of attention for one query of one head, over keys and values anywhere in memory.
///
/// A sequence's keys may lie in several pieces: scores are computed piece by piece, then a softmax over all of them,
/// then the context piece by piece. The result depends on the order of the keys, not on how they are cut.
public enum SingleQueryAttention {
    /// `scores[t] = query . key[t] + bias[t]`, unscaled.
    ///
    /// - Parameters:
    ///   - query: `width` floats.
    ///   - keys: The first key; key `t` starts `t * stride` elements later.
    ///   - type: How keys are kept.
    ///   - stride: Elements between the starts of two keys.
    ///   - width: Elements of a query and of a key.
    ///   - count: Number of keys.
    ///   - bias: `count` floats to add, or nil.
    ///   - scores: Room for `count` floats.
    ///   - level: The instruction set; the bits are the same for all.
    public static func scores(
        query: UnsafePointer<Float>,
        keys: UnsafeRawPointer,
        type: DType = .float32,
        stride: Int,
        width: Int,
        count: Int,
        bias: UnsafePointer<Float>?,
        into scores: UnsafeMutablePointer<Float>,
        level: KernelLevel = .best
    ) {
        ck_attention_scores(level.rawValue, query, keys, type.kernelCode, stride, width, count, bias, scores)
    }

    /// `context += sum over t of weights[t] * value[t]`.
    ///
    /// - Parameters:
    ///   - weights: `count` floats.
    ///   - values: The first value; value `t` starts `t * stride` elements later.
    ///   - type: How values are kept.
    ///   - stride: Elements between the starts of two values.
    ///   - width: Elements of a value.
    ///   - count: Number of values.
    ///   - context: `width` floats, to which the sum is added.
    ///   - level: The instruction set; the bits are the same for all.
    public static func accumulateContext(
        weights: UnsafePointer<Float>,
        values: UnsafeRawPointer,
        type: DType = .float32,
        stride: Int,
        width: Int,
        count: Int,
        into context: UnsafeMutablePointer<Float>,
        level: KernelLevel = .best
    ) {
        ck_attention_context(level.rawValue, weights, values, type.kernelCode, stride, width, count, context)
    }
}
