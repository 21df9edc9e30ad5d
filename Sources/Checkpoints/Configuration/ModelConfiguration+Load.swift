// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
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
    ///     `is_scale_prob`, `dropped_tokens` (`zero` or `pass`), and for a Switch Transformer also
    ///     `scale_decoder_outputs` and `is_gated_act`, are read from here only.
    ///     An override of a number of sparse layers also sets aside the file's sparse step. `sparse_step_rule` (`hf` or
    ///     `google`) is a key of our own.
    /// - Returns: A configuration that has passed `validate()`.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    public static func load(
        directory: String,
        overrides: [String: String] = [:]
    ) throws(CheckpointError) -> ModelConfiguration {
        try Checkpoint.refuseAdapterAlone(directory)
        let generationPath = "\(directory)/\(self.generationFile)"
        var generation: [String: JSONValue]?
        do {
            generation = try JSONValue.object(contentsOf: generationPath, maxBytes: self.maxFileBytes)
        } catch {
            guard error.code == .notFound else { throw error }
        }
        return try self.load(
            file: "\(directory)/\(self.configurationFile)",
            generation: generation,
            generationPath: generationPath,
            overrides: overrides
        )
    }

    /// Reads a file like `config.json` alone, to make a new model of.
    ///
    /// - Parameter path: The file, of any name.
    /// - Returns: A configuration that has passed `validate()`.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    public static func load(file path: String) throws(CheckpointError) -> ModelConfiguration {
        try self.load(file: path, generation: nil, generationPath: path, overrides: [:])
    }

    /// Reads the contents of a file like `config.json`.
    ///
    /// - Parameters:
    ///   - contents: The JSON, 4 MiB at most.
    ///   - name: What errors call it.
    /// - Returns: A configuration that has passed `validate()`.
    /// - Throws: `CheckpointError` that names the key, its limits and its value.
    public static func load(contents: [UInt8], name: String) throws(CheckpointError) -> ModelConfiguration {
        guard contents.count <= self.maxFileBytes else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "has \(contents.count) bytes, but may have \(self.maxFileBytes) at most",
                file: name
            )
        }
        let config = try JSONValue.object(contents, name: name)
        return try self.make(
            config: try self.usualNames(of: config, overrides: [:], file: name),
            configPath: name,
            generation: nil,
            generationPath: name,
            overrides: [:]
        )
    }

    private static func load(
        file path: String,
        generation: [String: JSONValue]?,
        generationPath: String,
        overrides: [String: String]
    ) throws(CheckpointError) -> ModelConfiguration {
        let config = try JSONValue.object(contentsOf: path, maxBytes: self.maxFileBytes)
        let overridden = try ConfigurationFields.parse(overrides: overrides)
        return try self.make(
            config: try self.usualNames(of: config, overrides: overridden, file: path),
            configPath: path,
            generation: generation,
            generationPath: generationPath,
            overrides: overridden
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
        let family = try self.family(fields)
        try ConfigurationTypes.check(config, family: family, overrides: overrides, file: configPath)
        try self.refuseUnused(overrides, family, file: configPath)
        var result = family.reader.defaults
        try family.reader.read(
            fields,
            overrides: ConfigurationFields(values: overrides, file: configPath),
            into: &result
        )
        if case .array(let classes)? = fields["architectures"], !classes.isEmpty {
            result.isEncoderClass = classes.allSatisfy { name in
                if case .string(let name) = name { name.hasSuffix("EncoderModel") } else { false }
            }
        }
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
        self.endTokenID = ends.first ?? (self.design.isDecoderOnly ? 0 : 1)
        self.padTokenID = try (fields["pad_token_id"] == nil ? config : fields).integer("pad_token_id") ?? 0
        let start = try Self.startToken(fields)
        let other = try Self.startToken(config)
        if let start = start ?? other {
            self.decoderStartTokenID = start
        } else if self.family != .switchTransformers, !self.isEncoderClass, !self.design.isDecoderOnly {
            throw config.failure(
                "decoder_start_token_id is missing, and so is bos_token_id: there is no token to begin with, and "
                    + "transformers does not generate either"
            )
        }
        self.generation = try GenerationDefaults(fields, endTokenIDs: ends)
        self.generation.padTokenID = try fields.integer("pad_token_id")
        self.assumesStartToken = start == nil && !self.design.isDecoderOnly
    }

    /// What people should know about the tokens that answers begin and end with, one line each.
    public var generationNotes: [String] {
        guard self.hasDecoder else { return [] }
        var notes: [String] = []
        if self.dropsTokens {
            notes.append(
                "drop_tokens is true, by which labml drops tokens over capacity; experts take all tokens here unless the setting "
                    + "capacity asks for labml's, such as floor:\(self.capacityFactor)"
            )
        }
        // A decoder-only model of single characters has no end.
        if !self.design.isDecoderOnly, self.generation.endTokenIDs.isEmpty {
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

    /// The family that the file names; Switch Transformers where it names none.
    private static func family(_ fields: ConfigurationFields) throws(CheckpointError) -> ModelFamily {
        guard let type = try fields.text("model_type") else { return .switchTransformers }
        guard let family = ModelFamily(rawValue: type) else {
            let names = ModelFamily.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
            throw CheckpointError(
                code: .otherFamily,
                message: "model_type is \"\(type)\"; only \(names) can be run, choose another checkpoint",
                file: fields.file
            )
        }
        return family
    }

    private static func refuseUnused(
        _ overrides: [String: JSONValue],
        _ family: ModelFamily,
        file: String
    ) throws(CheckpointError) {
        for key in overrides.keys.sorted() where family.reader.unusedKeys.contains(key) {
            throw CheckpointError(
                code: .unknownOverride,
                message: "the override of \(key) would change nothing in a model of type \(family.rawValue); "
                    + "leave it out",
                file: file
            )
        }
    }
}
