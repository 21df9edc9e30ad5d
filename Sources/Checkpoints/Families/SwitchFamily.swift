// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Switch Transformers, after transformers
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/switch_transformers).
enum SwitchFamily: FamilyReader {
    static var defaults: ModelConfiguration { ModelConfiguration() }

    // transformers does not read it for these models.
    static let unusedKeys: Set<String> = ["feed_forward_proj"]

    static func read(
        _ fields: ConfigurationFields,
        overrides: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        try self.readShape(fields, into: &configuration)
        // transformers reads an explicit null as "as many as the encoder", an absent key as 12.
        configuration.decoderBlocks =
            try fields.integer("num_decoder_layers")
            ?? (fields.hasNull("num_decoder_layers") ? configuration.encoderBlocks : configuration.decoderBlocks)
        try self.readExperts(fields, into: &configuration)
        configuration.tiedEmbeddings = try fields.boolean("tie_word_embeddings") ?? true
        configuration.activation = try self.activation(
            try fields.text("dense_act_fn") ?? "relu",
            key: "dense_act_fn",
            in: fields
        )
        try self.readChoices(overrides, into: &configuration)
    }

    private static func readExperts(
        _ fields: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        configuration.expertCount = try fields.integer("num_experts") ?? configuration.expertCount
        configuration.expertCapacity = try fields.integer("expert_capacity") ?? configuration.expertCapacity
        if let name = try fields.text("sparse_step_rule") {
            guard let rule = ModelConfiguration.SparseStepRule(rawValue: name) else {
                throw fields.failure("sparse_step_rule must be hf or google, but is \"\(name)\"")
            }
            configuration.sparseStepRule = rule
        }
        let blocks = configuration
        func step(_ stack: Stack) throws(CheckpointError) -> Int {
            if let step = try fields.integer("\(stack)_sparse_step") { return step }
            let count = try fields.integer("num_sparse_\(stack)_layers") ?? 3
            guard count >= 0 else {
                throw fields.failure("num_sparse_\(stack)_layers must not be negative, but is \(count)")
            }
            return count == 0 ? blocks.blockCount(stack) : blocks.blockCount(stack) / count
        }
        configuration.encoderSparseStep = try step(.encoder)
        configuration.decoderSparseStep = try step(.decoder)
        configuration.routerBias = try fields.boolean("router_bias") ?? false
        switch try fields.text("router_dtype") ?? "float32" {
        case "float32": configuration.routerDType = .float32
        case "bfloat16": configuration.routerDType = .bfloat16
        case "float16": configuration.routerDType = .float16
        case let name: throw fields.failure("router_dtype must be float32, bfloat16 or float16, but is \"\(name)\"")
        }
    }

    /// Reads what no configuration of transformers says, and only an override can.
    private static func readChoices(
        _ overrides: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        configuration.decoderOutputScaling = try overrides.boolean("scale_decoder_outputs")
        configuration.scalesByProbability = try overrides.boolean("is_scale_prob") ?? true
        configuration.gatingChoice = try overrides.boolean("is_gated_act")
        if let name = try overrides.text("dropped_tokens") {
            guard let choice = ModelConfiguration.DroppedTokens(rawValue: name) else {
                throw overrides.failure("dropped_tokens must be zero or pass, but is \"\(name)\"")
            }
            configuration.droppedTokens = choice
        }
    }

    /// Takes gating from the weights.
    ///
    /// transformers has no gated feed-forwards in this family and ignores `is_gated_act`. switch-xxl-128 has them, and
    /// its configuration denies it.
    static func settle(_ configuration: inout ModelConfiguration, tensors: [String: StoredTensor]) {
        if let choice = configuration.gatingChoice {
            configuration.gatedFeedForward = choice
            return
        }
        var found: Set<FeedForwardMatrix> = []
        for name in tensors.keys {
            switch self.role(named: name) ?? TensorRole(packedName: name) {
            case .dense(_, _, let matrix)?, .expert(_, _, let matrix)?: found.insert(matrix)
            default: break
            }
        }
        // A file with both kinds is refused when it is validated.
        configuration.gatedFeedForward = found.contains(.wi0) && !found.contains(.wi)
    }

    static func name(of role: TensorRole) -> String { role.name(feedForward: "mlp") }

    static func role(named name: String) -> TensorRole? { TensorRole(name: name, feedForward: "mlp") }
}
