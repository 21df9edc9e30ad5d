// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import SwitchyardTypes

/// One head's keys and values of a sequence, in pages of ``pageTokens`` tokens.
public struct KeptHead {
    /// Where the pages of the keys begin.
    public var keyPages: UnsafePointer<UnsafeRawPointer?>

    /// Where the pages of the values begin; they may be the same ones.
    public var valuePages: UnsafePointer<UnsafeRawPointer?>

    /// Bytes from a page's start to the head's first key; the next tokens' follow it.
    public var keyOffset: Int

    /// Bytes from a page's start to the head's first value; the next tokens' follow it.
    public var valueOffset: Int

    /// Tokens in a page.
    public var pageTokens: Int

    /// How keys and values are kept: float32 or bfloat16.
    public var type: DType

    /// Elements of a key, and of a value.
    public var width: Int

    /// Describes a head's keys and values.
    ///
    /// - Parameters:
    ///   - keyPages: Where the pages of the keys begin.
    ///   - valuePages: Where the pages of the values begin.
    ///   - keyOffset: Bytes from a page's start to the head's first key.
    ///   - valueOffset: Bytes from a page's start to the head's first value.
    ///   - pageTokens: Tokens in a page, at least one.
    ///   - type: float32 or bfloat16.
    ///   - width: Elements of a key, and of a value.
    public init(
        keyPages: UnsafePointer<UnsafeRawPointer?>,
        valuePages: UnsafePointer<UnsafeRawPointer?>,
        keyOffset: Int,
        valueOffset: Int,
        pageTokens: Int,
        type: DType,
        width: Int
    ) {
        self.keyPages = keyPages
        self.valuePages = valuePages
        self.keyOffset = keyOffset
        self.valueOffset = valueOffset
        self.pageTokens = pageTokens
        self.type = type
        self.width = width
    }
}

/// Attention of some queries of one head over keys and values that are kept: `softmax(query . keys + bias) values`.
///
/// Each query is computed as if it were alone, over its keys in their order. So its bits depend neither on the queries beside
/// it nor on how its keys are cut into pages. A score is summed in 16 lanes of fused multiply-adds, the context in one chain
/// for each element.
public enum KeptAttention {
    /// Floats of scratch memory where no query sees more than `keys` keys.
    public static func scratchFloats(keys: Int) -> Int {
        ck_attend_floats(keys)
    }

    /// Computes the contexts of consecutive queries.
    ///
    /// - Parameters:
    ///   - head: The keys and values.
    ///   - queries: `count` rows of `head.width` floats.
    ///   - stride: Elements between the starts of two queries, and of two contexts.
    ///   - count: Number of queries.
    ///   - keys: Keys that the first query sees, at least one.
    ///   - step: How many more each further query sees: 1 where keys are causal, 0 where all see the same.
    ///   - bias: What is added to the first query's scores; each further query's biases begin one float before those of the query
    ///     before it. Nil for none.
    ///   - scratch: Room for `scratchFloats(keys:)` floats.
    ///   - contexts: Room for `count` rows; overwritten.
    ///   - level: The instruction set; the bits are the same for all.
    public static func attend(
        _ head: KeptHead,
        queries: UnsafePointer<Float>,
        stride: Int,
        count: Int,
        keys: Int,
        step: Int,
        bias: UnsafePointer<Float>?,
        scratch: UnsafeMutablePointer<Float>,
        into contexts: UnsafeMutablePointer<Float>,
        level: KernelLevel = .best
    ) {
        var kept = ck_kept_head(
            key_pages: head.keyPages,
            value_pages: head.valuePages,
            keys: head.keyOffset,
            values: head.valueOffset,
            page_tokens: head.pageTokens,
            type: head.type.kernelCode,
            width: head.width
        )
        ck_attend(level.rawValue, &kept, queries, stride, count, keys, step, bias, scratch, contexts)
    }
}
