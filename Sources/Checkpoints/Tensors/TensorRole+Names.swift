// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension TensorRole {
    /// The name that Hugging Face transformers gives the tensor.
    public var name: String {
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
            "\(Self.feedForward(stack, block)).\(matrix.moduleName).weight"
        case .router(let layer): "\(Self.feedForward(layer.stack, layer.block)).router.classifier.weight"
        case .routerBias(let layer): "\(Self.feedForward(layer.stack, layer.block)).router.classifier.bias"
        case .expert(let layer, let expert, let matrix):
            "\(Self.feedForward(layer.stack, layer.block)).experts.expert_\(expert).\(matrix.moduleName).weight"
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
        }
    }

    private static func feedForward(_ stack: Stack, _ block: Int) -> String {
        "\(stack).block.\(block).layer.\(Sublayer.feedForward.layerIndex(in: stack)).mlp"
    }

    /// The embedding under its three names, best first: files written by `torch.save` repeat it.
    static let embeddingNames = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    /// The output projection under its two names; switch-xxl-128 and switch-c-2048 use the second.
    static let headNames = ["lm_head.weight", "decoder.lm_head.weight"]

    /// The names that a file may use for the tensor, best first.
    ///
    /// - Parameter tiedEmbeddings: Whether the output projection is the embedding, so that all its names mean one
    ///   tensor.
    /// - Returns: At least one name.
    func names(tiedEmbeddings: Bool) -> [String] {
        switch self {
        case .sharedEmbedding: tiedEmbeddings ? Self.embeddingNames + Self.headNames : Self.embeddingNames
        case .lmHead: tiedEmbeddings ? Self.embeddingNames + Self.headNames : Self.headNames
        default: [self.name]
        }
    }

    /// The role that a name stands for.
    ///
    /// - Parameter name: A name as transformers writes it, or one of the other names of the embedding and the output
    ///   projection.
    public init?(name: String) {
        if Self.embeddingNames.contains(name) {
            self = .sharedEmbedding
        } else if Self.headNames.contains(name) {
            self = .lmHead
        } else if let role = Self.parsed(name), role.name == name {
            // Writing the role out again refuses spellings such as "block.01" that the pieces alone would accept.
            self = role
        } else {
            return nil
        }
    }

    private static func parsed(_ name: String) -> TensorRole? {
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
        case "mlp":
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
    fileprivate var moduleName: String { self == .wi ? "wi" : "wo" }

    fileprivate init?(moduleName: Substring) {
        switch moduleName {
        case "wi": self = .wi
        case "wo": self = .wo
        default: return nil
        }
    }
}
