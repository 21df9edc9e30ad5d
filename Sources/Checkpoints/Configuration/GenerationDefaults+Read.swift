// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

extension GenerationDefaults {
    /// Reads the keys of a `generation_config.json`, or of the `config.json` that stands in for it.
    ///
    /// What only sampling reads is judged if the file turns sampling on: transformers does not look at it otherwise.
    ///
    /// - Parameters:
    ///   - fields: The file's keys and values.
    ///   - endTokenIDs: Every token that ends a sequence.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    init(_ fields: ConfigurationFields, endTokenIDs: [Int]) throws(CheckpointError) {
        self.init(endTokenIDs: endTokenIDs)
        self.file = fields.file.split(separator: "/").last.map(String.init) ?? fields.file
        let reader = GenerationFields(fields: fields)
        try self.readLengths(reader)
        try self.readSearch(reader)
        try self.readScores(reader)
        try self.readSampling(reader)
    }

    private mutating func readLengths(_ fields: GenerationFields) throws(CheckpointError) {
        self.maxNewTokens = try fields.count("max_new_tokens", from: 1)
        // The start token counts, so a length of 1 leaves no room for an answer.
        self.maxLength = try fields.count("max_length", from: self.maxNewTokens == nil ? 2 : 0)
        self.minNewTokens = try fields.count("min_new_tokens")
        self.minLength = try fields.count("min_length")
    }

    private mutating func readSearch(_ fields: GenerationFields) throws(CheckpointError) {
        self.beamCount = try fields.count("num_beams", from: 1, through: 1_024)
        self.beamGroups = try fields.count("num_beam_groups", from: 1, through: 1_024)
        self.diversityPenalty = try fields.number("diversity_penalty")
        self.returnedSequences = try fields.count("num_return_sequences", from: 1, through: 1_024)
        self.sampling = try fields.fields.boolean("do_sample")
        self.lengthPenalty = try fields.number("length_penalty")
        switch fields.fields["early_stopping"] {
        case nil: break
        case .bool(true): self.earlyStopping = .always
        case .bool(false): self.earlyStopping = .heuristic
        case .string("never"): self.earlyStopping = .never
        case .some(let value):
            throw fields.failure("early_stopping", "must be true, false or \"never\", but is \(value.brief)")
        }
    }

    private mutating func readScores(_ fields: GenerationFields) throws(CheckpointError) {
        self.repetitionPenalty = try fields.number("repetition_penalty", { $0 > 0 }, "finite and above 0")
        self.encoderRepetitionPenalty = try fields.number(
            "encoder_repetition_penalty",
            { $0 > 0 },
            "finite and above 0"
        )
        self.noRepeatNgramSize = try fields.count("no_repeat_ngram_size")
        self.encoderNoRepeatNgramSize = try fields.count("encoder_no_repeat_ngram_size")
        self.badWords = try fields.lists("bad_words_ids")
        self.suppressedTokens = try fields.ids("suppress_tokens")
        self.beginSuppressedTokens = try fields.ids("begin_suppress_tokens")
        self.forcedBeginToken = try fields.count("forced_bos_token_id")
        self.forcedEndTokens = try fields.ids("forced_eos_token_id", mayBeSingle: true)
        self.sequenceBias = try fields.biases("sequence_bias")
        self.lengthDecay = try fields.decay("exponential_decay_length_penalty")
        self.renormalizesLogits = try fields.fields.boolean("renormalize_logits")
    }

    private mutating func readSampling(_ fields: GenerationFields) throws(CheckpointError) {
        let isJudged = self.sampling == true
        func number(_ key: String, _ range: PartialRangeFrom<Float>, _ rule: String) throws(CheckpointError) -> Float? {
            try fields.number(key, { !isJudged || range.contains($0) }, rule)
        }
        func fraction(_ key: String) throws(CheckpointError) -> Float? {
            try fields.number(key, { !isJudged || (0...1).contains($0) }, "0 through 1")
        }
        self.temperature = try number("temperature", Float.leastNonzeroMagnitude..., "finite and above 0")
        self.topK = isJudged ? try fields.count("top_k") : try fields.fields.integer("top_k")
        self.topP = try fraction("top_p")
        self.minP = try fraction("min_p")
        self.typicalP = try number("typical_p", Float.leastNonzeroMagnitude..., "finite and above 0")
        self.epsilonCutoff = try number("epsilon_cutoff", 0..., "finite and not negative")
        self.etaCutoff = try number("eta_cutoff", 0..., "finite and not negative")
    }
}

/// Reads the kinds of values that generation's keys have.
struct GenerationFields {
    /// The most entries of a list, and of a list inside it.
    static let mostEntries = 4_096

    let fields: ConfigurationFields

    func failure(_ key: String, _ complaint: String) -> CheckpointError {
        CheckpointError(
            code: .invalidConfiguration,
            message: "\(key) \(complaint); correct the file",
            file: self.fields.file
        )
    }

    func count(_ key: String, from least: Int = 0, through most: Int = 1_000_000_000) throws(CheckpointError) -> Int? {
        guard let value = try self.fields.integer(key) else { return nil }
        guard value >= least, value <= most else {
            throw self.failure(key, "must be \(least) through \(most), but is \(value)")
        }
        return value
    }

    func number(
        _ key: String,
        _ isValid: (Float) -> Bool = { _ in true },
        _ rule: String = "finite"
    ) throws(CheckpointError) -> Float? {
        guard let value = try self.fields.number(key) else { return nil }
        guard value.isFinite, isValid(value) else { throw self.failure(key, "must be \(rule), but is \(value)") }
        return value
    }

    /// A list of ids, or a single one.
    func ids(_ key: String, mayBeSingle: Bool = false) throws(CheckpointError) -> [Int]? {
        guard let value = self.fields[key] else { return nil }
        if mayBeSingle, case .integer(let id) = value, id >= 0 { return [id] }
        guard let ids = Self.ids(value) else {
            throw self.failure(key, "must be a list of at most \(Self.mostEntries) token ids, but is \(value.brief)")
        }
        return ids
    }

    /// A list of lists of ids, none of them empty.
    func lists(_ key: String) throws(CheckpointError) -> [[Int]]? {
        guard let value = self.fields[key] else { return nil }
        guard case .array(let elements) = value, (1...Self.mostEntries).contains(elements.count) else {
            throw self.failure(key, "must list 1 through \(Self.mostEntries) lists, but is \(value.brief)")
        }
        var lists: [[Int]] = []
        for element in elements {
            guard let ids = Self.ids(element), !ids.isEmpty else {
                throw self.failure(key, "must list lists of token ids, but holds \(element.brief)")
            }
            lists.append(ids)
        }
        return lists
    }

    /// A list of pairs of a list of ids and a number.
    func biases(_ key: String) throws(CheckpointError) -> [GenerationDefaults.SequenceBias]? {
        guard let value = self.fields[key] else { return nil }
        guard case .array(let elements) = value, (1...Self.mostEntries).contains(elements.count) else {
            throw self.failure(
                key,
                "must list 1 through \(Self.mostEntries) pairs like [[45, 7], -1.5], but is \(value.brief)"
            )
        }
        var biases: [GenerationDefaults.SequenceBias] = []
        for element in elements {
            guard case .array(let pair) = element, pair.count == 2, let ids = Self.ids(pair[0]), !ids.isEmpty,
                let bias = Self.number(pair[1])
            else {
                throw self.failure(key, "must list pairs like [[45, 7], -1.5], but holds \(element.brief)")
            }
            biases.append(GenerationDefaults.SequenceBias(tokens: ids, bias: bias))
        }
        return biases
    }

    /// A pair of a length and a factor.
    func decay(_ key: String) throws(CheckpointError) -> GenerationDefaults.LengthDecay? {
        guard let value = self.fields[key] else { return nil }
        guard case .array(let pair) = value, pair.count == 2, case .integer(let start) = pair[0],
            (0...1_000_000_000).contains(start), let factor = Self.number(pair[1])
        else {
            throw self.failure(key, "must be a length and a factor like [15, 1.6], but is \(value.brief)")
        }
        return GenerationDefaults.LengthDecay(startIndex: start, factor: factor)
    }

    /// Ids that are not negative; nil for any other value.
    private static func ids(_ value: JSONValue) -> [Int]? {
        guard case .array(let elements) = value, elements.count <= self.mostEntries else { return nil }
        var ids: [Int] = []
        for element in elements {
            guard case .integer(let id) = element, id >= 0 else { return nil }
            ids.append(id)
        }
        return ids
    }

    private static func number(_ value: JSONValue) -> Float? {
        let number: Float
        switch value {
        case .integer(let integer): number = Float(integer)
        case .number(let double): number = Float(double)
        default: return nil
        }
        return number.isFinite ? number : nil
    }
}
