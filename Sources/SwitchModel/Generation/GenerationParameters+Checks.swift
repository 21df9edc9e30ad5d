// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
private import Glibc
#elseif canImport(Musl)
private import Musl
#elseif canImport(Darwin)
private import Darwin
#endif

extension GenerationParameters {
    /// The most tokens that a list of tokens or token sequences may hold in all.
    public static let maximumListedTokens = 65_536

    /// Checks the parameters that name tokens against a vocabulary.
    ///
    /// - Parameter vocabulary: The model's vocabulary.
    /// - Throws: `GenerationError` that names the first parameter with a token outside, the vocabulary's size and the
    ///   token.
    public func validate(for vocabulary: GenerationVocabulary) throws(GenerationError) {
        try Self.check("bad_words_ids", self.badWords.joined(), in: vocabulary)
        try Self.check("suppress_tokens", self.suppressedTokens, in: vocabulary)
        try Self.check("begin_suppress_tokens", self.beginSuppressedTokens, in: vocabulary)
        try Self.check("forced_bos_token_id", self.forcedBeginToken.map { [$0] } ?? [], in: vocabulary)
        try Self.check("forced_eos_token_id", self.forcedEndTokens, in: vocabulary)
        try Self.check("sequence_bias", self.sequenceBias.lazy.flatMap(\.tokens), in: vocabulary)
        guard self.lengthDecay == nil || !vocabulary.endTokenIDs.isEmpty else {
            throw GenerationError(
                field: "exponential_decay_length_penalty",
                message: "needs an end token to favor, but eos_token_id names none; leave it out, or set eos_token_id"
            )
        }
        guard self.badWords.isEmpty || !self.badWords.allSatisfy({ $0.count == 1 && vocabulary.isEnd($0[0]) }) else {
            throw GenerationError(
                field: "bad_words_ids",
                message: "must name something other than end tokens, but is \(self.badWords); leave it out"
            )
        }
    }

    static func check(
        _ field: String,
        _ tokens: some Sequence<Int32>,
        in vocabulary: GenerationVocabulary
    ) throws(GenerationError) {
        let size = Int32(clamping: vocabulary.size)
        guard let other = tokens.first(where: { $0 < 0 || $0 >= size }) else { return }
        throw GenerationError(
            field: field,
            message: "must be within the vocabulary of \(vocabulary.size), but is \(other)"
        )
    }

    /// Checks what changes scores whether tokens are drawn or not.
    func checkRules() throws(GenerationError) {
        let sizes = 0...Int(Int32.max)
        try Self.check("no_repeat_ngram_size", self.noRepeatNgramSize, in: sizes)
        try Self.check("encoder_no_repeat_ngram_size", self.encoderNoRepeatNgramSize, in: sizes)
        try Self.checkPositive("encoder_repetition_penalty", self.encoderRepetitionPenalty)
        try Self.checkList("bad_words_ids", self.badWords)
        try Self.checkList("sequence_bias", self.sequenceBias.map(\.tokens))
        try Self.checkList("suppress_tokens", [self.suppressedTokens], mayBeEmpty: true)
        try Self.checkList("begin_suppress_tokens", [self.beginSuppressedTokens], mayBeEmpty: true)
        try Self.checkList("forced_eos_token_id", [self.forcedEndTokens], mayBeEmpty: true)
        if let other = self.sequenceBias.first(where: { !$0.bias.isFinite }) {
            throw GenerationError(
                field: "sequence_bias",
                message: "must be finite, but is \(other.bias) for \(other.tokens); use bad_words_ids to ban tokens"
            )
        }
        try self.checkForced("forced_bos_token_id", self.forcedBeginToken.map { [$0] } ?? [])
        try self.checkForced("forced_eos_token_id", self.forcedEndTokens)
        let left = Set(self.forcedEndTokens).subtracting(self.suppressedTokens)
        // All of them have a score of 0, and which of them transformers takes depends on how torch sorts.
        guard self.beamCount == 1 || left.count < 2 else {
            throw GenerationError(
                field: "forced_eos_token_id",
                message: "must be one token where there are beams, to which several would be equally likely, but is "
                    + "\(self.forcedEndTokens); name one, or set num_beams to 1"
            )
        }
        if let decay = self.lengthDecay { try self.check(decay) }
        try self.checkGroups()
    }

    /// Refuses tokens that are forced and suppressed, as transformers does: nothing would be left to choose.
    private func checkForced(_ field: String, _ tokens: [Int32]) throws(GenerationError) {
        guard !tokens.isEmpty, Set(tokens).isSubset(of: self.suppressedTokens) else { return }
        throw GenerationError(
            field: field,
            message: "must not be in suppress_tokens altogether, but is \(tokens); leave it out of one of them"
        )
    }

    private func check(_ decay: LengthDecay) throws(GenerationError) {
        let field = "exponential_decay_length_penalty"
        try Self.check(field, decay.startIndex, in: -Self.maximumNewTokens...Self.maximumNewTokens)
        let longest = max(0, self.maxNewTokens - decay.startIndex)
        guard decay.factor.isFinite, Float(pow(Double(decay.factor), Double(longest))).isFinite else {
            throw GenerationError(
                field: field,
                message:
                    "must stay finite for \(longest) tokens from its start on, but is \(decay.factor) to that power"
            )
        }
    }

    /// Checks what a group beam search needs, as transformers does.
    private func checkGroups() throws(GenerationError) {
        try Self.check("num_beam_groups", self.beamGroups, in: 1...Self.maximumWidth)
        guard self.beamGroups > 1 else {
            guard self.diversityPenalty == 0 else {
                throw GenerationError(
                    field: "diversity_penalty",
                    message: "must be 0 with one group of beams, but is \(self.diversityPenalty); set num_beam_groups"
                )
            }
            return
        }
        guard self.beamCount.isMultiple(of: self.beamGroups) else {
            throw GenerationError(
                field: "num_beam_groups",
                message: "must divide num_beams of \(self.beamCount), but is \(self.beamGroups)"
            )
        }
        guard !self.sampling else {
            throw GenerationError(
                field: "num_beam_groups",
                message: "above 1 cannot be combined with do_sample; use one group, or do not sample"
            )
        }
        guard self.diversityPenalty > 0, self.diversityPenalty.isFinite else {
            throw GenerationError(
                field: "diversity_penalty",
                message: """
                    must be finite and above 0 with num_beam_groups of \(self.beamGroups), whose groups would otherwise be \
                    equal, but is \(self.diversityPenalty)
                    """
            )
        }
    }

    /// Refuses what goes by the encoder's input, where there is none.
    func checkNothingOfEncoder() throws(GenerationError) {
        let advice = "where there are no input tokens, but is"
        guard self.encoderNoRepeatNgramSize == 0 else {
            throw GenerationError(
                field: "encoder_no_repeat_ngram_size",
                message: "must be 0 \(advice) \(self.encoderNoRepeatNgramSize)"
            )
        }
        guard self.encoderRepetitionPenalty == 1 else {
            throw GenerationError(
                field: "encoder_repetition_penalty",
                message: "must be 1 \(advice) \(self.encoderRepetitionPenalty)"
            )
        }
    }

    /// Checks what only sampling reads.
    func checkSampling() throws(GenerationError) {
        try Self.check("top_k", self.topK, in: 0...Int(Int32.max))
        try Self.checkPositive("temperature", self.temperature)
        guard self.topP >= 0, self.topP <= 1 else {
            throw GenerationError(field: "top_p", message: "must be within 0...1, but is \(self.topP)")
        }
        if let minP = self.minP, !(minP >= 0 && minP <= 1) {
            throw GenerationError(field: "min_p", message: "must be within 0...1, but is \(minP)")
        }
        guard self.typicalP > 0, self.typicalP <= 1 else {
            throw GenerationError(
                field: "typical_p",
                message: "must be above 0 and at most 1, which is off, but is \(self.typicalP)"
            )
        }
        for (field, cutoff) in [("epsilon_cutoff", self.epsilonCutoff), ("eta_cutoff", self.etaCutoff)] {
            guard cutoff >= 0, cutoff < 1 else {
                throw GenerationError(
                    field: field,
                    message: "must be at least 0, which is off, and below 1, but is \(cutoff)"
                )
            }
        }
    }

    private static func checkList(
        _ field: String,
        _ sequences: [[Int32]],
        mayBeEmpty: Bool = false
    ) throws(GenerationError) {
        guard mayBeEmpty || !sequences.contains([]) else {
            throw GenerationError(
                field: field,
                message: "must hold at least one token a sequence, but is [] in one place"
            )
        }
        let count = sequences.reduce(0) { $0 + $1.count }
        guard count <= Self.maximumListedTokens else {
            throw GenerationError(
                field: field,
                message: "must hold at most \(Self.maximumListedTokens) tokens, but is \(count) long"
            )
        }
    }
}
