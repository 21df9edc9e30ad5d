// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension TensorRole {
    /// The name that Hugging Face transformers gives the tensor in a Switch Transformer; parts use it too.
    public var name: String { self.name(feedForward: "mlp") }

    /// The name of the tensor in a family that calls its feed-forward networks so.
    func name(feedForward module: String) -> String {
        switch self {
        case .sharedEmbedding: "shared.weight"
        case .lmHead: "lm_head.weight"
        case .finalNorm(let stack): "\(stack).final_layer_norm.weight"
        case .attention(let stack, let block, let kind, let projection):
            "\(stack).block.\(block).layer.\(kind.layerIndex).\(kind.moduleName).\(projection.moduleName).weight"
        case .relativeBias(let stack): "\(stack).block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        case .layerNorm(let stack, let block, let sublayer):
            "\(stack).block.\(block).layer.\(sublayer.layerIndex(in: stack)).layer_norm.weight"
        case .dense(let stack, let block, let matrix):
            "\(Self.feedForward(stack, block, module)).\(matrix.moduleName).weight"
        case .router(let layer): "\(Self.feedForward(layer.stack, layer.block, module)).router.classifier.weight"
        case .routerBias(let layer): "\(Self.feedForward(layer.stack, layer.block, module)).router.classifier.bias"
        case .expert(let layer, let expert, let matrix):
            "\(Self.feedForward(layer.stack, layer.block, module)).experts.expert_\(expert).\(matrix.moduleName).weight"
        case .bias(let part): part.name(feedForward: module).dropLast("weight".count) + "bias"
        }
    }

    /// The keys of `config.json` that give the tensor its shape.
    var shapeKeys: String {
        switch self {
        case .sharedEmbedding, .lmHead: "vocab_size, d_model"
        case .finalNorm, .layerNorm: "d_model"
        case .attention(_, _, _, .output): "d_model, num_heads * d_kv"
        case .attention: "num_heads * d_kv, d_model"
        case .relativeBias: "relative_attention_num_buckets, num_heads"
        case .dense(_, _, .wo), .expert(_, _, .wo): "d_model, d_ff"
        case .dense, .expert: "d_ff, d_model"
        case .router: "num_experts, d_model"
        case .routerBias: "num_experts"
        case .bias(let part): part.shapeKeys.split(separator: ",").first.map(String.init) ?? part.shapeKeys
        }
    }

    private static func feedForward(_ stack: Stack, _ block: Int, _ module: String) -> String {
        "\(stack).block.\(block).layer.\(Sublayer.feedForward.layerIndex(in: stack)).\(module)"
    }

    /// The embedding under its three names, best first: files written by `torch.save` repeat it.
    static let embeddingNames = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    /// The output projection under its two names; switch-xxl-128 and switch-c-2048 use the second.
    static let headNames = ["lm_head.weight", "decoder.lm_head.weight"]

    /// The role that a name stands for in a Switch Transformer.
    ///
    /// - Parameter name: A name as transformers writes it, or one of the other names of the embedding and the output
    ///   projection.
    public init?(name: String) { self.init(name: name, feedForward: "mlp") }

    /// The role that a name stands for in a family that calls its feed-forward networks so.
    init?(name: String, feedForward module: String) {
        if Self.embeddingNames.contains(name) {
            self = .sharedEmbedding
        } else if Self.headNames.contains(name) {
            self = .lmHead
        } else if let role = Self.parsed(name, module), role.name(feedForward: module) == name {
            // Writing the role out again refuses spellings such as "block.01" that the pieces alone would accept.
            self = role
        } else {
            return nil
        }
    }

    private static func parsed(_ name: String, _ module: String) -> TensorRole? {
        let pieces = name.split(separator: ".", omittingEmptySubsequences: false)
        guard pieces.count >= 3, let stack = Stack(name: pieces[0]) else { return nil }
        if pieces[1] == "final_layer_norm" { return .finalNorm(stack) }
        guard pieces.count >= 7, let block = Int(pieces[2]), let layer = Int(pieces[4]) else { return nil }
        switch pieces[5] {
        case "layer_norm":
            return Sublayer(layerIndex: layer, in: stack).map { .layerNorm(stack, block: block, $0) }
        case "SelfAttention", "EncDecAttention":
            if pieces[6] == "relative_attention_bias" { return .relativeBias(stack) }
            let kind: AttentionKind = pieces[5] == "SelfAttention" ? .selfAttention : .cross
            guard stack == .decoder || kind == .selfAttention else { return nil }
            return AttentionProjection(moduleName: pieces[6]).map { .attention(stack, block: block, kind, $0) }
        case Substring(module):
            return self.parsedFeedForward(pieces, SparseLayer(stack: stack, block: block))
        default:
            return nil
        }
    }

    private static func parsedFeedForward(_ pieces: [Substring], _ layer: SparseLayer) -> TensorRole? {
        switch pieces[6] {
        case "router":
            return pieces.last == "bias" ? .routerBias(layer) : .router(layer)
        case "experts":
            guard pieces.count == 10, pieces[7].hasPrefix("expert_"), let expert = Int(pieces[7].dropFirst(7)) else {
                return nil
            }
            return FeedForwardMatrix(moduleName: pieces[8]).map { .expert(layer, expert: expert, $0) }
        default:
            return FeedForwardMatrix(moduleName: pieces[6]).map { .dense(layer.stack, block: layer.block, $0) }
        }
    }
}

extension ModelConfiguration {
    /// The name that a tensor of this model has in its family's files.
    ///
    /// - Parameter role: What the tensor is for.
    /// - Returns: For example `shared.weight`.
    public func name(of role: TensorRole) -> String { self.family.reader.name(of: role) }

    /// The names that a file may use for a tensor, best first; at least one.
    ///
    /// Where the output projection is the embedding, all the names of both mean one tensor.
    func names(of role: TensorRole) -> [String] {
        self.family.reader.names(of: role, isTied: self.tiedEmbeddings)
    }
}

extension AttentionKind {
    fileprivate var layerIndex: Int { self == .selfAttention ? 0 : 1 }
    fileprivate var moduleName: String { self == .selfAttention ? "SelfAttention" : "EncDecAttention" }
}

extension AttentionProjection {
    fileprivate var moduleName: String {
        switch self {
        case .query: "q"
        case .key: "k"
        case .value: "v"
        case .output: "o"
        }
    }

    fileprivate init?(moduleName: Substring) {
        guard let projection = Self.allCases.first(where: { $0.moduleName == moduleName }) else { return nil }
        self = projection
    }
}

extension Sublayer {
    fileprivate func layerIndex(in stack: Stack) -> Int {
        switch self {
        case .selfAttention: 0
        case .crossAttention: 1
        case .feedForward: stack == .encoder ? 1 : 2
        }
    }

    fileprivate init?(layerIndex: Int, in stack: Stack) {
        switch (layerIndex, stack) {
        case (0, _): self = .selfAttention
        case (1, .decoder): self = .crossAttention
        case (1, .encoder), (2, .decoder): self = .feedForward
        default: return nil
        }
    }
}

extension FeedForwardMatrix {
    fileprivate var moduleName: String {
        switch self {
        case .wi: "wi"
        case .wo: "wo"
        case .wi0: "wi_0"
        case .wi1: "wi_1"
        }
    }

    fileprivate init?(moduleName: Substring) {
        guard let matrix = Self.allCases.first(where: { $0.moduleName == moduleName }) else { return nil }
        self = matrix
    }
}
