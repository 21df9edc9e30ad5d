// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// How well a model that sees the true target so far gives each next token.
public struct TokenMeasures: Sendable, Hashable {
    /// The tokens that were expected, without padding.
    public private(set) var tokens = 0

    /// The tokens that the model thought most likely and that were expected.
    public private(set) var correct = 0

    /// The sum of `-log p` over the expected tokens, in nats.
    public private(set) var lossSum = 0.0

    /// Measures of nothing.
    public init() {}

    /// Adds tokens.
    ///
    /// - Parameters:
    ///   - predicted: For each place, the token that the model thinks most likely.
    ///   - target: For each place, the token that was expected; as many.
    ///   - lossSum: The sum of `-log p` over these tokens, in nats.
    public mutating func add(predicted: some Collection<Int32>, target: some Collection<Int32>, lossSum: Double) {
        precondition(predicted.count == target.count, "\(predicted.count) tokens for \(target.count) places")
        self.tokens += target.count
        self.correct += zip(predicted, target).reduce(0) { $0 + ($1.0 == $1.1 ? 1 : 0) }
        self.lossSum += lossSum
    }

    /// Adds what was measured elsewhere.
    ///
    /// - Parameter other: Other measures.
    public mutating func add(_ other: Self) {
        self.tokens += other.tokens
        self.correct += other.correct
        self.lossSum += other.lossSum
    }

    /// The mean of `-log p`, in nats: the cross-entropy that is reported as loss.
    public var loss: Double { self.tokens == 0 ? 0 : self.lossSum / Double(self.tokens) }

    /// `exp` of ``loss``; infinite where that is too large a number.
    public var perplexity: Double { exp(self.loss) }

    /// The share of tokens that the model thought most likely.
    public var accuracy: Double { self.tokens == 0 ? 0 : Double(self.correct) / Double(self.tokens) }
}
