// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension ModelConfiguration {
    /// The file that every checkpoint must have.
    static let configurationFile = "config.json"
    /// The optional file with generation's defaults.
    public static let generationFile = "generation_config.json"
    private static let maxFileBytes = 4_194_304

    /// Reads `config.json` and, where it exists, `generation_config.json`.
    ///
    /// Absent fields have the values of transformers' configuration class (5.23.0), except that
    /// `decoder_start_token_id` defaults to 0 where transformers refuses to generate, because there is no `bos_token_id`
    /// either: the published base-128, base-256 and large-128 lack both. The end tokens are those of `generation_config.json`, or
    /// of `config.json` where there is no such file: without any, only the greatest length ends an answer, as in transformers.
    /// ``generationNotes`` say so.
    ///
    /// - Parameters:
    ///   - directory: The folder of the checkpoint.
    ///   - overrides: Hugging Face keys and the text of the values to use in place of the files': `["d_ff": "2048"]`.
    ///     `scale_decoder_outputs`, `is_scale_prob` and `dropped_tokens` (`zero` or `pass`) are read from here only.
    ///     An override of a number of sparse layers also sets aside the file's sparse step. `sparse_step_rule` (`hf` or
    ///     `google`) is a key of our own.
    /// - Returns: A configuration that has passed `validate()`.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    public static func load(
        directory: String,
        overrides: [String: String] = [:]
    ) throws(CheckpointError) -> ModelConfiguration {
        let path = "\(directory)/\(self.configurationFile)"
        let config = try JSONValue.object(contentsOf: path, maxBytes: self.maxFileBytes)
        let generationPath = "\(directory)/\(self.generationFile)"
        var generation: [String: JSONValue]?
        do {
            generation = try JSONValue.object(contentsOf: generationPath, maxBytes: self.maxFileBytes)
        } catch {
            guard error.code == .notFound else { throw error }
        }
        return try self.make(
            config: config,
            configPath: path,
            generation: generation,
            generationPath: generationPath,
            overrides: ConfigurationFields.parse(overrides: overrides)
        )
    }

    /// Checks that overrides name keys that can be overridden, with values of their types; opens no file.
    ///
    /// - Parameter overrides: Hugging Face keys and the text of the values.
    /// - Throws: `CheckpointError` that names the key, with the one that may have been meant.
    public static func check(overrides: [String: String]) throws(CheckpointError) {
        _ = try ConfigurationFields.parse(overrides: overrides)
    }

    private static func make(
        config: [String: JSONValue],
        configPath: String,
        generation: [String: JSONValue]?,
        generationPath: String,
        overrides: [String: JSONValue]
    ) throws(CheckpointError) -> ModelConfiguration {
        var values = config.merging(overrides) { $1 }
        for stack in Stack.allCases
        where overrides["num_sparse_\(stack)_layers"] != nil && overrides["\(stack)_sparse_step"] == nil {
            // The caller overrides the number of sparse layers, so the step that the file derived from its own number
            // no longer holds.
            values["\(stack)_sparse_step"] = nil
        }
        let fields = ConfigurationFields(values: values, file: configPath)
        let tokens = ConfigurationFields(
            values: (generation ?? [:]).merging(overrides) { $1 },
            file: generation == nil ? configPath : generationPath
        )
        try self.refuseOtherModels(fields)

        var result = ModelConfiguration()
        try result.readShape(fields)
        try result.readSparseSteps(fields)
        try result.readConstants(fields)
        if case .array(let classes)? = fields["architectures"], !classes.isEmpty {
            result.isEncoderClass = classes.allSatisfy { name in
                if case .string(let name) = name { name.hasSuffix("EncoderModel") } else { false }
            }
        }
        try result.readChoices(ConfigurationFields(values: overrides, file: configPath))
        try GenerationKey.check(
            generation ?? config,
            file: generation == nil ? configPath : generationPath,
            isModelFile: generation == nil
        )
        try result.readTokens(generation == nil ? fields : tokens, config: fields)
        do {
            try result.validate()
        } catch {
            throw CheckpointError(code: error.code, message: error.message, file: configPath)
        }
        return result
    }

    /// Reads the tokens that generation begins and ends with, and its defaults.
    ///
    /// - Parameters:
    ///   - fields: The file with generation's keys.
    ///   - config: The keys of `config.json`, which may be the same file.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    private mutating func readTokens(
        _ fields: ConfigurationFields,
        config: ConfigurationFields
    ) throws(CheckpointError) {
        let ends = try fields.integers("eos_token_id") ?? []
        self.endTokenID = ends.first ?? 1
        self.padTokenID = try (fields["pad_token_id"] == nil ? config : fields).integer("pad_token_id") ?? 0
        let start = try Self.startToken(fields)
        if let start {
            self.decoderStartTokenID = start
        } else {
            self.decoderStartTokenID = try Self.startToken(config) ?? 0
        }
        self.generation = try GenerationDefaults(fields, endTokenIDs: ends)
        self.assumesStartToken = start == nil
    }

    /// What people should know about the tokens that answers begin and end with, one line each.
    public var generationNotes: [String] {
        guard self.hasDecoder else { return [] }
        var notes: [String] = []
        if self.generation.endTokenIDs.isEmpty {
            notes.append(
                "\(self.generation.file) has no eos_token_id: only the greatest length ends an answer, as in transformers"
            )
        }
        if self.assumesStartToken {
            notes.append(
                "\(self.generation.file) has neither decoder_start_token_id nor bos_token_id, where transformers refuses to "
                    + "generate: answers start from token \(self.decoderStartTokenID)"
            )
        }
        return notes
    }

    /// The token that sequences start from; transformers takes `bos_token_id` where a file has no `decoder_start_token_id`.
    private static func startToken(_ fields: ConfigurationFields) throws(CheckpointError) -> Int? {
        if let start = try fields.integer("decoder_start_token_id") { return start }
        return try fields.integer("bos_token_id")
    }

    private static func refuseOtherModels(_ fields: ConfigurationFields) throws(CheckpointError) {
        if let type = try fields.text("model_type"), type != "switch_transformers" {
            throw CheckpointError(
                code: .otherFamily,
                message:
                    "model_type is \"\(type)\"; only \"switch_transformers\" can be run, choose another checkpoint",
                file: fields.file
            )
        }
    }

    private mutating func readShape(_ fields: ConfigurationFields) throws(CheckpointError) {
        self.vocabularySize = try fields.integer("vocab_size") ?? self.vocabularySize
        self.modelWidth = try fields.integer("d_model") ?? self.modelWidth
        self.keyWidth = try fields.integer("d_kv") ?? self.keyWidth
        self.feedForwardWidth = try fields.integer("d_ff") ?? self.feedForwardWidth
        self.headCount = try fields.integer("num_heads") ?? self.headCount
        self.encoderBlocks = try fields.integer("num_layers") ?? self.encoderBlocks
        // transformers reads an explicit null as "as many as the encoder", an absent key as 12.
        self.decoderBlocks =
            try fields.integer("num_decoder_layers")
            ?? (fields.hasNull("num_decoder_layers") ? self.encoderBlocks : self.decoderBlocks)
        self.expertCount = try fields.integer("num_experts") ?? self.expertCount
        self.expertCapacity = try fields.integer("expert_capacity") ?? self.expertCapacity
        self.relativeBuckets = try fields.integer("relative_attention_num_buckets") ?? self.relativeBuckets
        self.relativeMaxDistance = try fields.integer("relative_attention_max_distance") ?? self.relativeMaxDistance
    }

    private mutating func readSparseSteps(_ fields: ConfigurationFields) throws(CheckpointError) {
        if let name = try fields.text("sparse_step_rule") {
            guard let rule = SparseStepRule(rawValue: name) else {
                throw fields.failure("sparse_step_rule must be hf or google, but is \"\(name)\"")
            }
            self.sparseStepRule = rule
        }
        func step(_ stack: Stack) throws(CheckpointError) -> Int {
            if let step = try fields.integer("\(stack)_sparse_step") { return step }
            let count = try fields.integer("num_sparse_\(stack)_layers") ?? 3
            guard count >= 0 else {
                throw fields.failure("num_sparse_\(stack)_layers must not be negative, but is \(count)")
            }
            return count == 0 ? self.blockCount(stack) : self.blockCount(stack) / count
        }
        self.encoderSparseStep = try step(.encoder)
        self.decoderSparseStep = try step(.decoder)
    }

    /// Reads what no configuration of transformers says, and only an override can.
    private mutating func readChoices(_ overrides: ConfigurationFields) throws(CheckpointError) {
        self.decoderOutputScaling = try overrides.boolean("scale_decoder_outputs")
        self.scalesByProbability = try overrides.boolean("is_scale_prob") ?? true
        if let name = try overrides.text("dropped_tokens") {
            guard let choice = DroppedTokens(rawValue: name) else {
                throw overrides.failure("dropped_tokens must be zero or pass, but is \"\(name)\"")
            }
            self.droppedTokens = choice
        }
    }

    private mutating func readConstants(_ fields: ConfigurationFields) throws(CheckpointError) {
        self.routerBias = try fields.boolean("router_bias") ?? false
        self.tiedEmbeddings = try fields.boolean("tie_word_embeddings") ?? true
        self.layerNormEpsilon = try fields.number("layer_norm_epsilon") ?? self.layerNormEpsilon
        switch try fields.text("router_dtype") ?? "float32" {
        case "float32": self.routerDType = .float32
        case "bfloat16": self.routerDType = .bfloat16
        case "float16": self.routerDType = .float16
        case let name: throw fields.failure("router_dtype must be float32, bfloat16 or float16, but is \"\(name)\"")
        }
        let name = try fields.text("dense_act_fn") ?? "relu"
        guard let activation = Activation(transformersName: name) else {
            throw fields.failure(
                "dense_act_fn must be one of \(Activation.transformersNames.joined(separator: ", ")), but is \"\(name)\"",
                code: .unsupported
            )
        }
        self.activation = activation
    }
}
