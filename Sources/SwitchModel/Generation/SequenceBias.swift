// SPDX-License-Identifier: Apache-2.0

/// A bias for a sequence of tokens, as one entry of transformers' `sequence_bias`.
public struct SequenceBias: Sendable, Hashable {
    /// The tokens, at least one; the bias applies to the last one where a sequence ends with the others.
    public var tokens: [Int32]

    /// What is added to the last token's score: positive makes it more probable.
    public var bias: Float

    /// Creates a bias.
    ///
    /// - Parameters:
    ///   - tokens: The tokens, at least one.
    ///   - bias: What is added to the last token's score.
    public init(tokens: [Int32], bias: Float) {
        self.tokens = tokens
        self.bias = bias
    }
}

/// A growing pressure to end, transformers' `exponential_decay_length_penalty`.
public struct LengthDecay: Sendable, Hashable {
    /// The number of new tokens from which on the end tokens' scores rise.
    public var startIndex: Int

    /// Each token further, the rise is multiplied by this.
    public var factor: Float

    /// Creates a pressure.
    ///
    /// - Parameters:
    ///   - startIndex: The number of new tokens from which on the end tokens' scores rise.
    ///   - factor: Each token further, the rise is multiplied by this.
    public init(startIndex: Int, factor: Float) {
        self.startIndex = startIndex
        self.factor = factor
    }
}
