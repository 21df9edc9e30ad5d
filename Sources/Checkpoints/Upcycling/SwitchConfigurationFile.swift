// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// A `config.json` that transformers reads as `SwitchTransformersConfig`.
struct SwitchConfigurationFile: Encodable {
    private let architectures = ["SwitchTransformersForConditionalGeneration"]
    private let modelType = ModelFamily.switchTransformers.rawValue
    private let isEncoderDecoder = true
    private let vocabSize: Int
    private let dModel: Int
    private let dKv: Int
    private let dFf: Int
    private let numHeads: Int
    private let numLayers: Int
    private let numDecoderLayers: Int
    private let numSparseEncoderLayers: Int
    private let numSparseDecoderLayers: Int
    private let encoderSparseStep: Int
    private let decoderSparseStep: Int
    private let numExperts: Int
    private let expertCapacity: Int
    private let routerBias: Bool
    private let routerDtype: String
    private let routerJitterNoise: Float = 0.01
    private let routerIgnorePaddingTokens = false
    private let addRouterProbs = false
    private let relativeAttentionNumBuckets: Int
    private let relativeAttentionMaxDistance: Int
    private let dropoutRate: Double
    private let layerNormEpsilon: Float
    private let initializerFactor: Float = 1
    private let denseActFn: String
    private let tieWordEmbeddings: Bool
    private let useCache = true
    private let padTokenId: Int
    private let eosTokenId: Int
    private let decoderStartTokenId: Int

    private enum CodingKeys: String, CodingKey {
        case architectures
        case modelType = "model_type"
        case isEncoderDecoder = "is_encoder_decoder"
        case vocabSize = "vocab_size"
        case dModel = "d_model"
        case dKv = "d_kv"
        case dFf = "d_ff"
        case numHeads = "num_heads"
        case numLayers = "num_layers"
        case numDecoderLayers = "num_decoder_layers"
        case numSparseEncoderLayers = "num_sparse_encoder_layers"
        case numSparseDecoderLayers = "num_sparse_decoder_layers"
        case encoderSparseStep = "encoder_sparse_step"
        case decoderSparseStep = "decoder_sparse_step"
        case numExperts = "num_experts"
        case expertCapacity = "expert_capacity"
        case routerBias = "router_bias"
        case routerDtype = "router_dtype"
        case routerJitterNoise = "router_jitter_noise"
        case routerIgnorePaddingTokens = "router_ignore_padding_tokens"
        case addRouterProbs = "add_router_probs"
        case relativeAttentionNumBuckets = "relative_attention_num_buckets"
        case relativeAttentionMaxDistance = "relative_attention_max_distance"
        case dropoutRate = "dropout_rate"
        case layerNormEpsilon = "layer_norm_epsilon"
        case initializerFactor = "initializer_factor"
        case denseActFn = "dense_act_fn"
        case tieWordEmbeddings = "tie_word_embeddings"
        case useCache = "use_cache"
        case padTokenId = "pad_token_id"
        case eosTokenId = "eos_token_id"
        case decoderStartTokenId = "decoder_start_token_id"
    }

    /// Takes over a configuration.
    ///
    /// - Parameters:
    ///   - model: The configuration.
    ///   - dropoutRate: The share of elements that training drops, which the configuration does not hold.
    init(_ model: ModelConfiguration, dropoutRate: Double) {
        self.vocabSize = model.vocabularySize
        self.dModel = model.modelWidth
        self.dKv = model.keyWidth
        self.dFf = model.feedForwardWidth
        self.numHeads = model.headCount
        self.numLayers = model.encoderBlocks
        self.numDecoderLayers = model.decoderBlocks
        self.encoderSparseStep = model.encoderSparseStep
        self.decoderSparseStep = model.decoderSparseStep
        self.numSparseEncoderLayers =
            Upcycling.sparseLayers(blocks: model.encoderBlocks, step: model.encoderSparseStep) ?? 0
        self.numSparseDecoderLayers =
            Upcycling.sparseLayers(blocks: model.decoderBlocks, step: model.decoderSparseStep) ?? 0
        self.numExperts = model.expertCount
        self.expertCapacity = model.expertCapacity
        self.routerBias = model.routerBias
        self.routerDtype = model.routerDType.rawValue
        self.relativeAttentionNumBuckets = model.relativeBuckets
        self.relativeAttentionMaxDistance = model.relativeMaxDistance
        self.dropoutRate = dropoutRate
        self.layerNormEpsilon = model.layerNormEpsilon
        self.denseActFn = model.activation.rawValue
        self.tieWordEmbeddings = model.tiedEmbeddings
        self.padTokenId = model.padTokenID
        self.eosTokenId = model.endTokenID
        self.decoderStartTokenId = model.decoderStartTokenID
    }
}
