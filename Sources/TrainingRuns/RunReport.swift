// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What a run says of its last steps, or of an evaluation: a line of `metrics.jsonl`.
public struct RunReport: Sendable, Hashable, Codable {
    /// One sparse layer's balance.
    public struct Balance: Sendable, Hashable, Codable {
        /// The layer: `encoder 1`.
        public var layer: String
        /// The share of tokens of each expert.
        public var shares: [Double]
        /// The share of tokens that were dropped.
        public var dropped: Double
        /// The probability of a token's most probable expert, averaged over the tokens; absent in older lines.
        public var certainty: Double?

        /// Describes a layer's balance.
        ///
        /// - Parameters:
        ///   - layer: The layer: `encoder 1`.
        ///   - shares: The share of tokens of each expert.
        ///   - dropped: The share of tokens that were dropped.
        ///   - certainty: The probability of a token's most probable expert, averaged over the tokens.
        public init(layer: String, shares: [Double], dropped: Double, certainty: Double? = nil) {
            self.layer = layer
            self.shares = shares
            self.dropped = dropped
            self.certainty = certainty
        }

        /// The largest share as a multiple of an even one.
        public var peak: Double { (self.shares.max() ?? 0) * Double(self.shares.count) }
    }

    /// Steps that were taken.
    public var step: Int
    /// What the line tells of.
    public var kind: Kind
    /// The loss that is minimised, averaged over the steps since the last line.
    public var loss: Double
    /// Its cross-entropy, averaged in the same way.
    public var crossEntropy: Double
    /// How far the model is from its teacher in nats per token, averaged in the same way; absent without a teacher.
    public var divergence: Double?
    /// The load balancing loss of a layer before its factor, averaged over layers; 1 is even.
    public var balance: Double?
    /// The router z-loss before its factor.
    public var routerZ: Double?
    /// The share of sparse layers' tokens that were dropped.
    public var dropped: Double?
    /// The gradients' norm before clipping.
    public var gradientNorm: Double?
    /// The learning rate of the last step.
    public var learningRate: Double?
    /// Input and target tokens per second since the last line.
    public var tokensPerSecond: Double?
    /// The share of target tokens that were predicted, in an evaluation.
    public var accuracy: Double?
    /// Seconds since the run began, earlier sessions included.
    public var seconds: Double
    /// Epochs of the data that were read.
    public var epoch: Double?
    /// Lines that could not be used, in an evaluation of its own.
    public var unusableLines: Int?
    /// Each sparse layer's balance.
    public var layers: [Balance]

    /// The smallest and the largest share of an expert in any layer, and the deviation of all shares: what labml's experiment
    /// tracks as `route.min`, `route.max` and `route.std`, the last with PyTorch's `n - 1`.
    public var shareRange: (least: Double, greatest: Double, deviation: Double)? {
        let shares = self.layers.flatMap(\.shares)
        guard let least = shares.min(), let greatest = shares.max() else { return nil }
        let mean = shares.reduce(0, +) / Double(shares.count)
        let squares = shares.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return (least, greatest, (squares / Double(max(1, shares.count - 1))).squareRoot())
    }

    /// The probability of a token's most probable expert, averaged over tokens and layers: labml's `route.max_prob`.
    public var certainty: Double? {
        let values = self.layers.compactMap(\.certainty)
        return values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
    }

    /// What a line tells of.
    public enum Kind: String, Sendable, Hashable, Codable {
        /// Steps of training.
        case training
        /// An evaluation.
        case evaluation
    }

    /// Describes steps or an evaluation; the rest is set by property.
    ///
    /// - Parameters:
    ///   - step: Steps that were taken.
    ///   - kind: What the line tells of.
    ///   - loss: The loss.
    ///   - crossEntropy: Its cross-entropy.
    ///   - seconds: Seconds since the run began.
    ///   - layers: Each sparse layer's balance.
    public init(
        step: Int,
        kind: Kind,
        loss: Double,
        crossEntropy: Double,
        seconds: Double,
        layers: [Balance] = []
    ) {
        self.step = step
        self.kind = kind
        self.loss = loss
        self.crossEntropy = crossEntropy
        self.seconds = seconds
        self.layers = layers
    }

    /// Reads a line; nil where it is none.
    ///
    /// - Parameter line: A line of `metrics.jsonl`.
    public init?(line: String) {
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf",
            negativeInfinity: "-inf",
            nan: "nan"
        )
        guard let report = try? decoder.decode(Self.self, from: Data(line.utf8)) else { return nil }
        self = report
    }

    /// The line, without its end.
    public var line: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf",
            negativeInfinity: "-inf",
            nan: "nan"
        )
        guard let data = try? encoder.encode(self) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }
}
