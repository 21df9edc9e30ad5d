// SPDX-License-Identifier: Apache-2.0

/// A family of models: those whose `config.json` says the same `model_type`.
///
/// A further family is a case here and a ``FamilyReader`` in a file of its own.
public enum ModelFamily: String, Sendable, Hashable, CaseIterable {
    /// Switch Transformers: T5 with top-1 mixtures of experts.
    case switchTransformers = "switch_transformers"
    /// Dense T5 in all its layouts: the original, v1.1, flan-t5, monoT5, madlad.
    case t5
    /// Multilingual dense T5.
    case mt5
    /// labml's Switch Transformer: autoregressive, decoder-only, over single characters.
    case labmlSwitch = "labml_switch"

    /// What this family's files mean.
    var reader: any FamilyReader.Type {
        switch self {
        case .switchTransformers: SwitchFamily.self
        case .t5: T5Family.self
        case .mt5: MT5Family.self
        case .labmlSwitch: LabmlFamily.self
        }
    }
}

/// What the files of one family mean.
protocol FamilyReader {
    /// A configuration with the values of transformers' configuration class.
    static var defaults: ModelConfiguration { get }

    /// Keys that can be overridden in some family, but mean nothing in this one.
    static var unusedKeys: Set<String> { get }

    /// Reads the keys of `config.json` that describe the model.
    ///
    /// - Parameters:
    ///   - fields: The file with the overrides applied.
    ///   - overrides: The overrides alone.
    ///   - configuration: ``defaults``, to be completed.
    /// - Throws: `CheckpointError` that names the file, the key, its limits and its value.
    static func read(
        _ fields: ConfigurationFields,
        overrides: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError)

    /// Adapts a configuration to what the weight files hold, where the family's models are described by those.
    ///
    /// - Parameters:
    ///   - configuration: What ``read(_:overrides:into:)`` made.
    ///   - tensors: The files' tensors by name.
    static func settle(_ configuration: inout ModelConfiguration, tensors: [String: StoredTensor])

    /// The name that transformers gives a tensor.
    static func name(of role: TensorRole) -> String

    /// The role that a name in a file stands for; nil for a name that no model of the family has.
    static func role(named name: String) -> TensorRole?

    /// The names that a file may use for a tensor, best first; at least one.
    ///
    /// - Parameters:
    ///   - role: What the tensor is for.
    ///   - isTied: Whether the output projection is the embedding.
    /// - Returns: The names.
    static func names(of role: TensorRole, isTied: Bool) -> [String]

    /// The keys of `config.json` that give a tensor its shape.
    static func shapeKeys(of role: TensorRole) -> String

    /// What to correct where a configuration has no place for a tensor of the family.
    ///
    /// - Parameters:
    ///   - role: What the tensor is for.
    ///   - configuration: The model's configuration.
    /// - Returns: A sentence without its subject; nil where the keys are those of T5-shaped models.
    static func hint(forUnplaced role: TensorRole, in configuration: ModelConfiguration) -> String?

    /// What does the same with these files, and so decides what may be in them, for messages.
    static var reference: String { get }

    /// Whether tensors of names that no model of the family has are refused, rather than ignored.
    static var refusesUnknownTensors: Bool { get }
}

extension FamilyReader {
    static func settle(_ configuration: inout ModelConfiguration, tensors: [String: StoredTensor]) {}

    static func names(of role: TensorRole, isTied: Bool) -> [String] {
        switch (role, isTied) {
        case (.sharedEmbedding, true), (.lmHead, true): TensorRole.embeddingNames + TensorRole.headNames
        case (.sharedEmbedding, false): TensorRole.embeddingNames
        case (.lmHead, false): TensorRole.headNames
        default: [self.name(of: role)]
        }
    }

    static func shapeKeys(of role: TensorRole) -> String { role.shapeKeys }

    static func hint(forUnplaced role: TensorRole, in configuration: ModelConfiguration) -> String? { nil }

    static var reference: String { "transformers" }

    static var refusesUnknownTensors: Bool { false }
}

extension FamilyReader {
    /// Reads the sizes that all T5-shaped models have.
    static func readShape(
        _ fields: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        configuration.vocabularySize = try fields.integer("vocab_size") ?? configuration.vocabularySize
        configuration.modelWidth = try fields.integer("d_model") ?? configuration.modelWidth
        configuration.keyWidth = try fields.integer("d_kv") ?? configuration.keyWidth
        configuration.feedForwardWidth = try fields.integer("d_ff") ?? configuration.feedForwardWidth
        configuration.headCount = try fields.integer("num_heads") ?? configuration.headCount
        configuration.encoderBlocks = try fields.integer("num_layers") ?? configuration.encoderBlocks
        configuration.relativeBuckets =
            try fields.integer("relative_attention_num_buckets") ?? configuration.relativeBuckets
        configuration.relativeMaxDistance =
            try fields.integer("relative_attention_max_distance") ?? configuration.relativeMaxDistance
        configuration.layerNormEpsilon = try fields.number("layer_norm_epsilon") ?? configuration.layerNormEpsilon
    }

    /// The activation that a key names.
    static func activation(
        _ name: String,
        key: String,
        in fields: ConfigurationFields
    ) throws(CheckpointError) -> ModelConfiguration.Activation {
        guard let activation = ModelConfiguration.Activation(transformersName: name) else {
            let names = ModelConfiguration.Activation.transformersNames.joined(separator: ", ")
            throw fields.failure("\(key) must be one of \(names), but is \"\(name)\"", code: .unsupported)
        }
        return activation
    }
}
