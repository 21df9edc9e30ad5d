// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// A `config.json` that transformers reads as `SwitchTransformersConfig`.
///
/// Written by hand, since that class refuses `1` where it wants `1.0`, and JSON encoders write the former.
enum SwitchConfigurationFile {
    /// The file's text.
    ///
    /// - Parameters:
    ///   - model: The configuration.
    ///   - dropoutRate: The share of elements that training drops, which the configuration does not hold.
    /// - Returns: JSON, its keys sorted.
    static func text(_ model: ModelConfiguration, dropoutRate: Double) -> String {
        let sparseEncoderLayers = Upcycling.sparseLayers(blocks: model.encoderBlocks, step: model.encoderSparseStep)
        let sparseDecoderLayers = Upcycling.sparseLayers(blocks: model.decoderBlocks, step: model.decoderSparseStep)
        let fields = [
            "add_router_probs": "false",
            "architectures": "[\"SwitchTransformersForConditionalGeneration\"]",
            "d_ff": "\(model.feedForwardWidth)",
            "d_kv": "\(model.keyWidth)",
            "d_model": "\(model.modelWidth)",
            "decoder_sparse_step": "\(model.decoderSparseStep)",
            "decoder_start_token_id": "\(model.decoderStartTokenID)",
            "dense_act_fn": "\"\(model.activation.rawValue)\"",
            "dropout_rate": "\(dropoutRate)",
            "encoder_sparse_step": "\(model.encoderSparseStep)",
            "eos_token_id": "\(model.endTokenID)",
            "expert_capacity": "\(model.expertCapacity)",
            "initializer_factor": "1.0",
            "is_encoder_decoder": "true",
            "layer_norm_epsilon": "\(model.layerNormEpsilon)",
            "model_type": "\"\(ModelFamily.switchTransformers.rawValue)\"",
            "num_decoder_layers": "\(model.decoderBlocks)",
            "num_experts": "\(model.expertCount)",
            "num_heads": "\(model.headCount)",
            "num_layers": "\(model.encoderBlocks)",
            "num_sparse_decoder_layers": "\(sparseDecoderLayers ?? 0)",
            "num_sparse_encoder_layers": "\(sparseEncoderLayers ?? 0)",
            "pad_token_id": "\(model.padTokenID)",
            "relative_attention_max_distance": "\(model.relativeMaxDistance)",
            "relative_attention_num_buckets": "\(model.relativeBuckets)",
            "router_bias": "\(model.routerBias)",
            "router_dtype": "\"\(model.routerDType.rawValue)\"",
            "router_ignore_padding_tokens": "false",
            "router_jitter_noise": "0.01",
            "tie_word_embeddings": "\(model.tiedEmbeddings)",
            "use_cache": "true",
            "vocab_size": "\(model.vocabularySize)",
        ]
        let lines = fields.sorted { $0.key < $1.key }.map { "  \"\($0.key)\": \($0.value)" }
        return "{\n\(lines.joined(separator: ",\n"))\n}\n"
    }
}
