// SPDX-License-Identifier: Apache-2.0

/// Dense T5, after transformers
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/t5): the original, v1.1,
/// flan-t5, monoT5 and madlad.
enum T5Family: FamilyReader {
    static var defaults: ModelConfiguration {
        var configuration = ModelConfiguration(
            modelWidth: 512,
            feedForwardWidth: 2_048,
            headCount: 8,
            encoderBlocks: 6,
            decoderBlocks: 6
        )
        configuration.family = .t5
        configuration.makeDense()
        return configuration
    }

    static let unusedKeys = ModelConfiguration.sparseKeys

    static func read(
        _ fields: ConfigurationFields,
        overrides: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        try self.readDense(fields, defaultFeedForward: "relu", into: &configuration)
        // The original's outputs were always scaled, those of v1.1 never, and the configurations of v1.1 say that the
        // embeddings are not tied. Whether they are, the weights say: `settle`.
        let isTied = try fields.boolean("tie_word_embeddings") ?? true
        // An explicit null is as good as false to transformers.
        let unsaid = isTied && !fields.hasNull("scale_decoder_outputs")
        configuration.decoderOutputScaling = try fields.boolean("scale_decoder_outputs") ?? unsaid
    }

    static func settle(_ configuration: inout ModelConfiguration, tensors: [String: StoredTensor]) {
        self.settleHead(&configuration, tensors: tensors)
    }

    static func name(of role: TensorRole) -> String { role.name(feedForward: "DenseReluDense") }

    static func role(named name: String) -> TensorRole? {
        // The only other name of the head belongs to Switch Transformers.
        guard name != "decoder.lm_head.weight" else { return nil }
        let role = TensorRole(name: name, feedForward: "DenseReluDense")
        switch role {
        case .router, .routerBias, .expert: return nil
        default: return role
        }
    }
}

/// Dense multilingual T5, after transformers
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/mt5).
enum MT5Family: FamilyReader {
    static var defaults: ModelConfiguration {
        var configuration = ModelConfiguration(
            vocabularySize: 250_112,
            modelWidth: 512,
            feedForwardWidth: 1_024,
            headCount: 6,
            encoderBlocks: 8,
            decoderBlocks: 8
        )
        configuration.family = .mt5
        configuration.makeDense()
        return configuration
    }

    // Outputs are never scaled, and the weights say whether there is a head.
    static let unusedKeys = ModelConfiguration.sparseKeys.union(["tie_word_embeddings"])

    static func read(
        _ fields: ConfigurationFields,
        overrides: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        try self.readDense(fields, defaultFeedForward: "gated-gelu", into: &configuration)
        // transformers looks at neither `tie_word_embeddings` nor `scale_decoder_outputs`.
        configuration.decoderOutputScaling = try overrides.boolean("scale_decoder_outputs") ?? false
    }

    static func settle(_ configuration: inout ModelConfiguration, tensors: [String: StoredTensor]) {
        self.settleHead(&configuration, tensors: tensors)
    }

    static func name(of role: TensorRole) -> String { T5Family.name(of: role) }

    static func role(named name: String) -> TensorRole? { T5Family.role(named: name) }
}

extension ModelConfiguration {
    /// Keys that only models with experts have.
    static let sparseKeys: Set<String> = [
        "num_sparse_encoder_layers", "num_sparse_decoder_layers", "encoder_sparse_step", "decoder_sparse_step",
        "sparse_step_rule", "num_experts", "expert_capacity", "router_bias", "router_dtype", "is_scale_prob",
        "dropped_tokens",
    ]

    fileprivate mutating func makeDense() {
        self.encoderSparseStep = 0
        self.decoderSparseStep = 0
        self.expertCount = 0
        self.expertCapacity = 0
    }
}

extension FamilyReader {
    /// Reads what both dense families have.
    fileprivate static func readDense(
        _ fields: ConfigurationFields,
        defaultFeedForward: String,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        try self.readShape(fields, into: &configuration)
        configuration.decoderBlocks = try fields.integer("num_decoder_layers") ?? configuration.encoderBlocks
        let key = "feed_forward_proj"
        let projection = try fields.text(key) ?? defaultFeedForward
        let words = projection.split(separator: "-", omittingEmptySubsequences: false)
        guard words.count == 1 || words.count == 2 && words[0] == "gated" else {
            throw fields.failure("\(key) must be an activation such as relu, or gated-gelu, but is \"\(projection)\"")
        }
        // A saved configuration has both of these too, and transformers lets them win.
        configuration.gatedFeedForward = try fields.boolean("is_gated_act") ?? (words[0] == "gated")
        if let name = try fields.text("dense_act_fn") {
            configuration.activation = try self.activation(name, key: "dense_act_fn", in: fields)
        } else {
            let name = projection == "gated-gelu" ? "gelu_new" : words.last.map(String.init) ?? projection
            configuration.activation = try self.activation(name, key: key, in: fields)
        }
    }

    /// Takes the file's own output projection, which transformers uses whatever the configuration says of tying; a copy
    /// of the embedding is the embedding.
    fileprivate static func settleHead(_ configuration: inout ModelConfiguration, tensors: [String: StoredTensor]) {
        configuration.tiedEmbeddings = true
        guard let head = tensors["lm_head.weight"] else { return }
        guard let embedding = TensorRole.embeddingNames.lazy.compactMap({ tensors[$0] }).first else { return }
        configuration.tiedEmbeddings = head.hasValues(of: embedding)
    }
}
