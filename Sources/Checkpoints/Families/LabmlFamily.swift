// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import SwitchyardTypes

/// labml's Switch Transformer, an autoregressive model over single characters, after labml_nn 0.5.1
/// (https://nn.labml.ai/transformers/switch/index.html, and `experiment.html` beside it for the model as a whole).
///
/// labml saves no configuration, so `config.json` is this program's own: `model_type` is `labml_switch`, the other keys are those
/// of labml's `Configs`, with its defaults, and `characters` lists the vocabulary (or `n_tokens` counts it, for a model that
/// takes ids only). Weights are the model's `state_dict`, under labml's names.
enum LabmlFamily: FamilyReader {
    static var defaults: ModelConfiguration {
        var configuration = ModelConfiguration(
            vocabularySize: 0,
            modelWidth: 128,
            keyWidth: 32,
            feedForwardWidth: 256,
            headCount: 4,
            encoderBlocks: 0,
            decoderBlocks: 6,
            encoderSparseStep: 0,
            decoderSparseStep: 1,
            expertCount: 4,
            expertCapacity: 0,
            routerBias: true,
            layerNormEpsilon: 1e-5,
            tiedEmbeddings: false,
            endTokenID: 0
        )
        configuration.family = .labmlSwitch
        configuration.design = .labml
        configuration.decoderOutputScaling = false
        configuration.droppedTokens = .pass
        return configuration
    }

    /// Keys that say how the model learns, and nothing of what it computes.
    private static let trainingKeys: Set<String> = ["dropout", "load_balancing_loss_ceof"]

    private static let ownKeys: Set<String> = [
        "model_type", "characters", "n_tokens", "d_model", "heads", "d_ff", "n_layers", "n_experts", "capacity_factor",
        "drop_tokens", "is_scale_prob", "dropped_tokens",
    ]

    /// Keys of generation that have no meaning where the input is continued.
    private static let foreignKeys: Set<String> = ["decoder_start_token_id", "forced_bos_token_id"]

    static var unusedKeys: Set<String> {
        Set(ConfigurationFields.kinds.keys)
            .subtracting(["d_model", "d_ff", "is_scale_prob", "dropped_tokens", "eos_token_id", "pad_token_id"])
    }

    static let reference = "labml"
    // As `load_state_dict` does.
    static let refusesUnknownTensors = true

    static func read(
        _ fields: ConfigurationFields,
        overrides: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        try self.refuseUnknownKeys(fields)
        try self.readSizes(fields, into: &configuration)
        configuration.vocabularySize = try self.vocabularySize(fields)
        configuration.scalesByProbability = try fields.boolean("is_scale_prob") ?? true
        configuration.dropsTokens = try fields.boolean("drop_tokens") ?? false
        if let factor = try fields.double("capacity_factor") {
            guard factor > 0, factor <= 1_000_000 else {
                throw fields.failure("capacity_factor must be above 0 and at most 1000000, but is \(factor)")
            }
            configuration.capacityFactor = factor
        }
        if let name = try fields.text("dropped_tokens") {
            guard let choice = ModelConfiguration.DroppedTokens(rawValue: name) else {
                throw fields.failure("dropped_tokens must be zero or pass, but is \"\(name)\"")
            }
            configuration.droppedTokens = choice
        }
        for key in self.trainingKeys.sorted() {
            guard let value = try fields.double(key), !(0...1).contains(value) else { continue }
            throw fields.failure("\(key) must be 0 through 1, but is \(value)")
        }
    }

    private static func readSizes(
        _ fields: ConfigurationFields,
        into configuration: inout ModelConfiguration
    ) throws(CheckpointError) {
        typealias Limits = ModelConfiguration.Limits
        func size(_ key: String, _ value: Int, _ range: ClosedRange<Int>) throws(CheckpointError) -> Int {
            let size = try fields.integer(key) ?? value
            guard range.contains(size) else {
                throw fields.failure("\(key) must be \(range.lowerBound) through \(range.upperBound), but is \(size)")
            }
            return size
        }
        configuration.modelWidth = try size("d_model", configuration.modelWidth, Limits.width)
        configuration.headCount = try size("heads", configuration.headCount, Limits.headCount)
        configuration.feedForwardWidth = try size("d_ff", configuration.feedForwardWidth, Limits.width)
        configuration.decoderBlocks = try size("n_layers", configuration.decoderBlocks, Limits.blocks)
        configuration.expertCount = try size("n_experts", configuration.expertCount, Limits.experts)
        // labml rounds the width of a head down, and its output projection then takes another width than heads give.
        guard configuration.modelWidth % configuration.headCount == 0 else {
            throw fields.failure(
                "heads must divide d_model, \(configuration.modelWidth), but is \(configuration.headCount)"
            )
        }
        configuration.keyWidth = configuration.modelWidth / configuration.headCount
    }

    /// The number of characters, as they are listed or counted.
    private static func vocabularySize(_ fields: ConfigurationFields) throws(CheckpointError) -> Int {
        let counted = try fields.integer("n_tokens")
        let listed = try fields.text("characters").map { $0.unicodeScalars.count }
        if let counted, let listed, counted != listed {
            throw fields.failure("n_tokens is \(counted), but characters lists \(listed); they must be as many")
        }
        guard let size = listed ?? counted else {
            throw fields.failure("characters is missing, and so is n_tokens: the size of the vocabulary is unknown")
        }
        guard ModelConfiguration.Limits.vocabularySize.contains(size) else {
            let limits = ModelConfiguration.Limits.vocabularySize
            throw fields.failure(
                "\(listed == nil ? "n_tokens" : "the number of characters") must be \(limits.lowerBound) through "
                    + "\(limits.upperBound), but is \(size)"
            )
        }
        return size
    }

    private static func refuseUnknownKeys(_ fields: ConfigurationFields) throws(CheckpointError) {
        let generation = Set(GenerationKey.all.map(\.name)).union(["pad_token_id"]).subtracting(self.foreignKeys)
        let known = self.ownKeys.union(self.trainingKeys)
        for key in fields.keys.sorted() where !known.contains(key) && !generation.contains(key) {
            throw CheckpointError(
                code: .invalidConfiguration,
                message:
                    "\(key.prefix(80)) is no key of a labml Switch Transformer; its keys are "
                    + "\(known.sorted().joined(separator: ", ")), and those of generation; remove it",
                file: fields.file
            )
        }
    }

    // MARK: - Tensors

    static func names(of role: TensorRole, isTied: Bool) -> [String] { [self.name(of: role)] }

    static func shapeKeys(of role: TensorRole) -> String {
        // The same shapes under labml's names; a head's keys are as wide as d_model says.
        switch role {
        case .sharedEmbedding, .lmHead: "n_tokens, d_model"
        case .attention: "d_model, d_model"
        case .router: "n_experts, d_model"
        case .routerBias: "n_experts"
        case .bias(.lmHead): "n_tokens"
        case .bias(.attention): "d_model"
        default: role.shapeKeys
        }
    }

    static func hint(forUnplaced role: TensorRole, in configuration: ModelConfiguration) -> String? {
        if let expert = role.expert, expert.layer.block < configuration.decoderBlocks {
            return "is beyond the \(configuration.expertCount) experts of the configuration; correct n_experts"
        }
        return "belongs to a layer beyond the \(configuration.decoderBlocks) of the configuration; correct n_layers"
    }

    static func name(of role: TensorRole) -> String {
        switch role {
        case .sharedEmbedding: "src_embed.weight"
        case .lmHead: "generator.weight"
        case .finalNorm(.decoder): "transformer.norm.weight"
        case .attention(.decoder, let block, .selfAttention, let projection):
            "transformer.layers.\(block).attn.\(projection.labmlName).weight"
        case .layerNorm(.decoder, let block, .selfAttention): "transformer.layers.\(block).norm_self_attn.weight"
        case .layerNorm(.decoder, let block, .feedForward): "transformer.layers.\(block).norm_ff.weight"
        case .router(let layer) where layer.stack == .decoder:
            "transformer.layers.\(layer.block).feed_forward.switch.weight"
        case .routerBias(let layer) where layer.stack == .decoder:
            "transformer.layers.\(layer.block).feed_forward.switch.bias"
        case .expert(let layer, let expert, .wi) where layer.stack == .decoder:
            "transformer.layers.\(layer.block).feed_forward.experts.\(expert).layer1.weight"
        case .expert(let layer, let expert, .wo) where layer.stack == .decoder:
            "transformer.layers.\(layer.block).feed_forward.experts.\(expert).layer2.weight"
        case .bias(let part): self.name(of: part).dropLast("weight".count) + "bias"
        // The model has no such tensor.
        default: role.name
        }
    }

    static func role(named name: String) -> TensorRole? {
        guard let role = self.parsed(name), self.name(of: role) == name else { return nil }
        // Writing the role out again refuses spellings such as "layers.01" that the pieces alone would accept.
        return role
    }

    private static func parsed(_ name: String) -> TensorRole? {
        var pieces = name.split(separator: ".", omittingEmptySubsequences: false)
        guard let kind = pieces.popLast(), kind == "weight" || kind == "bias" else { return nil }
        let isBias = kind == "bias"
        func part(_ role: TensorRole) -> TensorRole { isBias ? .bias(of: role) : role }
        switch pieces.joined(separator: ".") {
        case "src_embed": return isBias ? nil : .sharedEmbedding
        case "generator": return part(.lmHead)
        case "transformer.norm": return part(.finalNorm(.decoder))
        default: break
        }
        guard pieces.count >= 4, pieces[0] == "transformer", pieces[1] == "layers", let block = Int(pieces[2]) else {
            return nil
        }
        let layer = SparseLayer(stack: .decoder, block: block)
        switch (pieces[3], pieces.count) {
        case ("norm_self_attn", 4): return part(.layerNorm(.decoder, block: block, .selfAttention))
        case ("norm_ff", 4): return part(.layerNorm(.decoder, block: block, .feedForward))
        case ("attn", 5...6):
            let module = pieces[4...].joined(separator: ".")
            return AttentionProjection.allCases.first { $0.labmlName == module }
                .map { part(.attention(.decoder, block: block, .selfAttention, $0)) }
        case ("feed_forward", 5) where pieces[4] == "switch": return isBias ? .routerBias(layer) : .router(layer)
        case ("feed_forward", 7) where pieces[4] == "experts":
            guard let expert = Int(pieces[5]) else { return nil }
            switch pieces[6] {
            case "layer1": return part(.expert(layer, expert: expert, .wi))
            case "layer2": return part(.expert(layer, expert: expert, .wo))
            default: return nil
            }
        default: return nil
        }
    }
}

extension AttentionProjection {
    /// The module of labml's `MultiHeadAttention`.
    fileprivate var labmlName: String {
        switch self {
        case .query: "query.linear"
        case .key: "key.linear"
        case .value: "value.linear"
        case .output: "output"
        }
    }
}
