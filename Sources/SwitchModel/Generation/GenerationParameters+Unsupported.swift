// SPDX-License-Identifier: Apache-2.0

extension GenerationParameters {
    /// Refuses every parameter that generation does not follow yet, so that none is ignored.
    ///
    /// - Throws: `GenerationError` that names the first such parameter and its value.
    func checkSupport() throws(GenerationError) {
        let neutral = GenerationParameters()
        try Self.check("no_repeat_ngram_size", self.noRepeatNgramSize, is: neutral.noRepeatNgramSize)
        try Self.check(
            "encoder_no_repeat_ngram_size",
            self.encoderNoRepeatNgramSize,
            is: neutral.encoderNoRepeatNgramSize
        )
        try Self.check("bad_words_ids", self.badWords, is: neutral.badWords)
        try Self.check("suppress_tokens", self.suppressedTokens, is: neutral.suppressedTokens)
        try Self.check("begin_suppress_tokens", self.beginSuppressedTokens, is: neutral.beginSuppressedTokens)
        try Self.check("forced_bos_token_id", self.forcedBeginToken, is: neutral.forcedBeginToken)
        try Self.check("forced_eos_token_id", self.forcedEndTokens, is: neutral.forcedEndTokens)
        try Self.check("sequence_bias", self.sequenceBias, is: neutral.sequenceBias)
        try Self.check("exponential_decay_length_penalty", self.lengthDecay, is: neutral.lengthDecay)
        try Self.check("min_p", self.minP, is: neutral.minP)
        try Self.check("typical_p", self.typicalP, is: neutral.typicalP)
        try Self.check("epsilon_cutoff", self.epsilonCutoff, is: neutral.epsilonCutoff)
        try Self.check("eta_cutoff", self.etaCutoff, is: neutral.etaCutoff)
        try Self.check(
            "encoder_repetition_penalty",
            self.encoderRepetitionPenalty,
            is: neutral.encoderRepetitionPenalty
        )
        try Self.check("num_beam_groups", self.beamGroups, is: neutral.beamGroups)
        try Self.check("diversity_penalty", self.diversityPenalty, is: neutral.diversityPenalty)
        try Self.check("renormalize_logits", self.renormalizesLogits, is: neutral.renormalizesLogits)
    }

    private static func check<Value: Equatable>(
        _ field: String,
        _ value: Value,
        is neutral: Value
    ) throws(GenerationError) {
        guard value == neutral else {
            throw GenerationError(field: field, message: "is not supported, but is \(value); leave it out")
        }
    }
}
