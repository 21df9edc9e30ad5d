// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
private import Glibc
#elseif canImport(Musl)
private import Musl
#elseif canImport(Darwin)
private import Darwin
#endif

/// What changes the scores besides the repetition penalty and the least length.
///
/// Each rule is that of the processor of the same name in transformers 5.23
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/generation/logits_process.py).
/// ``ScoreProcessing`` calls them in transformers' order. A request without any of them has no such value.
struct ScoreRules: Sendable {
    private let sequenceBias: [SequenceBias]
    private let badWords: [[Int32]]
    private let encoderPenalty: Float

    /// The encoder's input tokens, each once.
    private let encoderTokens: Set<Int32>
    private let ngramSize: Int

    /// The tokens that follow each run of tokens in the encoder's input, by the run.
    private let encoderNgrams: [[Int32]: [Int32]]
    private let encoderNgramSize: Int
    private let forcedBegin: Int32?
    private let forcedEnd: [Int32]
    private let lengthDecay: LengthDecay?
    private let suppressed: [Int32]
    private let beginSuppressed: [Int32]

    /// The number of new tokens at which ``beginSuppressed`` holds.
    private let beginLength: Int
    private let maxNewTokens: Int
    private let endTokenIDs: [Int32]

    /// Takes the relevant ones of a request's parameters; nil when none of them is set.
    ///
    /// - Parameters:
    ///   - parameters: The request's parameters.
    ///   - vocabulary: The model's vocabulary.
    ///   - encoderTokens: The encoder's input.
    ///   - hasPrefix: Whether tokens between the start token and the first new one are given.
    init?(
        parameters: GenerationParameters,
        vocabulary: GenerationVocabulary,
        encoderTokens: [Int32],
        hasPrefix: Bool
    ) {
        guard parameters.changesScores else { return nil }
        self.sequenceBias = Self.merged(parameters.sequenceBias)
        self.badWords = Array(Set(parameters.badWords))
            .filter { $0.count != 1 || !vocabulary.isEnd($0[0]) }
        self.encoderPenalty = parameters.encoderRepetitionPenalty
        self.encoderTokens = Set(encoderTokens)
        self.ngramSize = parameters.noRepeatNgramSize
        self.encoderNgramSize = parameters.encoderNoRepeatNgramSize
        self.encoderNgrams = Self.ngrams(encoderTokens, size: parameters.encoderNoRepeatNgramSize)
        self.forcedBegin = hasPrefix ? nil : parameters.forcedBeginToken
        self.forcedEnd = parameters.forcedEndTokens
        self.lengthDecay = parameters.lengthDecay
        self.suppressed = parameters.suppressedTokens
        self.beginSuppressed = parameters.beginSuppressedTokens
        self.beginLength = hasPrefix || parameters.forcedBeginToken == nil ? 0 : 1
        self.maxNewTokens = parameters.maxNewTokens
        self.endTokenIDs = vocabulary.endTokenIDs
    }

    /// Whether the rules before the repetition penalty change a score.
    var hasBiases: Bool { !self.sequenceBias.isEmpty || self.encoderPenalty != 1 }

    /// The first rule: biases.
    ///
    /// - Parameters:
    ///   - scores: The scores, which are changed.
    ///   - history: The sequence so far, the start token included.
    func applySequenceBias(to scores: inout [Float], history: [Int32]) {
        for bias in self.sequenceBias where Self.completes(bias.tokens, history) {
            if let last = bias.tokens.last { scores[Int(last)] += bias.bias }
        }
    }

    /// The rule before the repetition penalty: the encoder's repetition penalty.
    ///
    /// - Parameter scores: The scores, which are changed.
    func applyEncoderPenalty(to scores: inout [Float]) {
        guard self.encoderPenalty != 1 else { return }
        let penalty = Float(1 / Double(self.encoderPenalty))
        for token in self.encoderTokens {
            let score = scores[Int(token)]
            scores[Int(token)] = score < 0 ? score * penalty : score / penalty
        }
    }

    /// The rules between the repetition penalty and the least length: repeated n-grams and bad words.
    ///
    /// - Parameters:
    ///   - scores: The scores, which are changed.
    ///   - history: The sequence so far, the start token included.
    func applyBans(to scores: inout [Float], history: [Int32]) {
        self.banRepeatedNgrams(in: &scores, history: history)
        if self.encoderNgramSize > 0, history.count >= self.encoderNgramSize - 1 {
            for token in self.encoderNgrams[Array(history.suffix(self.encoderNgramSize - 1))] ?? [] {
                scores[Int(token)] = -.infinity
            }
        }
        for word in self.badWords where Self.completes(word, history) {
            if let last = word.last { scores[Int(last)] = -.infinity }
        }
    }

    /// The rules after the least length: forced tokens, the pressure to end and suppressed tokens.
    ///
    /// - Parameters:
    ///   - scores: The scores, which are changed.
    ///   - length: The number of new tokens so far.
    func applyLimits(to scores: inout [Float], length: Int) {
        if length == 0, let token = self.forcedBegin {
            Self.force([token], in: &scores)
        }
        if length == self.maxNewTokens - 1, !self.forcedEnd.isEmpty {
            Self.force(self.forcedEnd, in: &scores)
        }
        if let decay = self.lengthDecay, length > decay.startIndex {
            let rise = Float(pow(Double(decay.factor), Double(length - decay.startIndex)) - 1)
            for token in self.endTokenIDs {
                let score = scores[Int(token)]
                if score.isFinite { scores[Int(token)] = score + abs(score) * rise }
            }
        }
        for token in self.suppressed { scores[Int(token)] = -.infinity }
        guard length == self.beginLength else { return }
        for token in self.beginSuppressed { scores[Int(token)] = -.infinity }
    }

    private func banRepeatedNgrams(in scores: inout [Float], history: [Int32]) {
        let size = self.ngramSize
        guard size > 0, history.count >= size else { return }
        let tail = history.count - (size - 1)
        for start in 0...(history.count - size)
        where (0..<(size - 1)).allSatisfy({ history[start + $0] == history[tail + $0] }) {
            scores[Int(history[start + size - 1])] = -.infinity
        }
    }

    /// Whether a sequence's last token would complete it after a history.
    private static func completes(_ sequence: [Int32], _ history: [Int32]) -> Bool {
        let count = sequence.count - 1
        guard count > 0 else { return count == 0 }
        guard count <= history.count else { return false }
        let start = history.count - count
        return (0..<count).allSatisfy { sequence[$0] == history[start + $0] }
    }

    private static func force(_ tokens: [Int32], in scores: inout [Float]) {
        for id in scores.indices { scores[id] = -.infinity }
        for token in tokens { scores[Int(token)] = 0 }
    }

    /// Each sequence once, with its last bias, as a Python dictionary keeps them.
    private static func merged(_ biases: [SequenceBias]) -> [SequenceBias] {
        var places: [[Int32]: Int] = [:]
        var merged: [SequenceBias] = []
        for bias in biases {
            if let place = places[bias.tokens] {
                merged[place].bias = bias.bias
            } else {
                places[bias.tokens] = merged.count
                merged.append(bias)
            }
        }
        return merged
    }

    private static func ngrams(_ tokens: [Int32], size: Int) -> [[Int32]: [Int32]] {
        guard size > 0, tokens.count >= size else { return [:] }
        var ngrams: [[Int32]: [Int32]] = [:]
        for start in 0...(tokens.count - size) {
            ngrams[Array(tokens[start..<(start + size - 1)]), default: []].append(tokens[start + size - 1])
        }
        return ngrams
    }
}

extension GenerationParameters {
    /// Whether ``ScoreRules`` would change any score.
    var changesScores: Bool {
        self.noRepeatNgramSize > 0 || self.encoderNoRepeatNgramSize > 0 || !self.badWords.isEmpty
            || !self.suppressedTokens.isEmpty || !self.beginSuppressedTokens.isEmpty || self.forcedBeginToken != nil
            || !self.forcedEndTokens.isEmpty || !self.sequenceBias.isEmpty || self.lengthDecay != nil
            || self.encoderRepetitionPenalty != 1
    }
}
