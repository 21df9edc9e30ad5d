// SPDX-License-Identifier: Apache-2.0

/// The defaults that a checkpoint's `generation_config.json` sets for requests; `nil` where it sets none.
///
/// Where a checkpoint has no such file, the same keys of `config.json` are used, as in transformers.
public struct GenerationDefaults: Sendable, Equatable {
    /// When a beam search may stop before its longest sequence is complete.
    public enum EarlyStopping: Sendable, Hashable, CaseIterable {
        /// As soon as there are as many finished sequences as beams: `early_stopping=True` in transformers.
        case always
        /// When a better sequence is unlikely to follow: `early_stopping=False`, the default.
        case heuristic
        /// Only when no better sequence can follow: `early_stopping="never"`.
        case never
    }

    /// The most new tokens (`max_new_tokens`).
    public var maxNewTokens: Int?
    /// The most tokens, the decoder start token included (`max_length`).
    public var maxLength: Int?
    /// The fewest new tokens (`min_new_tokens`).
    public var minNewTokens: Int?
    /// The fewest tokens, the decoder start token included (`min_length`).
    public var minLength: Int?
    /// Beams (`num_beams`).
    public var beamCount: Int?
    /// Exponent of the length that divides a beam's score (`length_penalty`).
    public var lengthPenalty: Float?
    /// When beam search ends (`early_stopping`).
    public var earlyStopping: EarlyStopping?
    /// Whether tokens are drawn at random (`do_sample`).
    public var sampling: Bool?
    /// Divides logits before sampling (`temperature`).
    public var temperature: Float?
    /// Tokens that sampling chooses from (`top_k`).
    public var topK: Int?
    /// Probability mass that sampling chooses from (`top_p`).
    public var topP: Float?
    /// Divides the logits of tokens that were already written (`repetition_penalty`).
    public var repetitionPenalty: Float?
    /// Sequences returned for each request (`num_return_sequences`).
    public var returnedSequences: Int?
    /// Every token that ends a sequence; the first is `ModelConfiguration.endTokenID`.
    public var endTokenIDs: [Int]

    /// Makes defaults that set only the end tokens.
    ///
    /// - Parameter endTokenIDs: Every token that ends a sequence.
    public init(endTokenIDs: [Int] = [1]) {
        self.endTokenIDs = endTokenIDs
    }

    /// The most new tokens, from whichever of the two limits the file gives; `max_new_tokens` wins, as in transformers.
    public var newTokenLimit: Int? {
        self.maxNewTokens ?? self.maxLength.map { max(0, $0 - 1) }
    }
}

extension GenerationDefaults {
    /// Reads the keys of a `generation_config.json`, or of the `config.json` that stands in for it.
    ///
    /// - Parameters:
    ///   - fields: The file's keys and values.
    ///   - endTokenIDs: Every token that ends a sequence.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    init(_ fields: ConfigurationFields, endTokenIDs: [Int]) throws(CheckpointError) {
        self.init(endTokenIDs: endTokenIDs)
        func count(_ key: String, _ range: ClosedRange<Int>) throws(CheckpointError) -> Int? {
            guard let value = try fields.integer(key) else { return nil }
            guard range.contains(value) else {
                throw fields.failure("\(key) must be \(range.lowerBound) through \(range.upperBound), but is \(value)")
            }
            return value
        }
        func number(_ key: String, _ isValid: (Float) -> Bool, _ rule: String) throws(CheckpointError) -> Float? {
            guard let value = try fields.number(key) else { return nil }
            guard value.isFinite, isValid(value) else {
                throw fields.failure("\(key) must be \(rule), but is \(value)")
            }
            return value
        }
        let lengths = 0...1_000_000_000
        self.maxNewTokens = try count("max_new_tokens", lengths)
        self.maxLength = try count("max_length", lengths)
        self.minNewTokens = try count("min_new_tokens", lengths)
        self.minLength = try count("min_length", lengths)
        self.beamCount = try count("num_beams", 1...1_024)
        self.returnedSequences = try count("num_return_sequences", 1...1_024)
        self.topK = try count("top_k", lengths)
        self.sampling = try fields.boolean("do_sample")
        self.lengthPenalty = try number("length_penalty", { _ in true }, "finite")
        self.temperature = try number("temperature", { $0 >= 0 }, "finite and not negative")
        self.topP = try number("top_p", { $0 >= 0 && $0 <= 1 }, "0 through 1")
        self.repetitionPenalty = try number("repetition_penalty", { $0 > 0 }, "finite and above 0")
        switch fields["early_stopping"] {
        case nil: break
        case .bool(true): self.earlyStopping = .always
        case .bool(false): self.earlyStopping = .heuristic
        case .string("never"): self.earlyStopping = .never
        case .some(let value):
            throw fields.failure("early_stopping must be true, false or \"never\", but is \(value.kind)")
        }
    }
}
