// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

extension ModelConfiguration {
    /// The dense T5 of this model's shape: every sparse block has one feed-forward network in place of router and experts.
    ///
    /// - Parameter directory: The model's folder, for messages.
    /// - Returns: The configuration.
    /// - Throws: `unsupported` for an encoder alone.
    public func dense(directory: String) throws(CheckpointError) -> ModelConfiguration {
        guard self.hasDecoder, self.encoderBlocks > 0 else {
            throw CheckpointError(
                code: .unsupported,
                message: "is one stack alone and gives no answers to learn from; give a model with encoder and decoder",
                file: directory
            )
        }
        var result = self
        result.family = .t5
        // A Switch Transformer scales the decoder's outputs where embeddings are tied, and so does T5 unless it is told.
        result.decoderOutputScaling = self.scalesDecoderOutputs
        result.encoderSparseStep = 0
        result.decoderSparseStep = 0
        result.expertCount = 0
        result.expertCapacity = 0
        result.routerBias = false
        return result
    }
}

/// A `config.json` that transformers reads as `T5Config`.
public enum DenseConfigurationFile {
    /// The file's text.
    ///
    /// - Parameters:
    ///   - model: A dense T5's configuration.
    ///   - dropoutRate: The share of elements that training drops, which the configuration does not hold.
    /// - Returns: JSON, its keys sorted.
    public static func text(_ model: ModelConfiguration, dropoutRate: Double) -> String {
        let isGated = model.gatedFeedForward
        // In T5 a gated gelu is the approximation by its tanh; the other two keys say it exactly.
        let name = isGated && model.activation == .geluTanh ? "gelu" : model.activation.rawValue
        var fields = [
            "architectures": "[\"T5ForConditionalGeneration\"]",
            "d_ff": "\(model.feedForwardWidth)",
            "d_kv": "\(model.keyWidth)",
            "d_model": "\(model.modelWidth)",
            "decoder_start_token_id": "\(model.decoderStartTokenID)",
            "dense_act_fn": "\"\(model.activation.rawValue)\"",
            "dropout_rate": "\(dropoutRate)",
            "dtype": "\"float32\"",
            "eos_token_id": "\(model.endTokenID)",
            "feed_forward_proj": "\"\(isGated ? "gated-" : "")\(name)\"",
            "initializer_factor": "1.0",
            "is_encoder_decoder": "true",
            "is_gated_act": "\(isGated)",
            "layer_norm_epsilon": "\(model.layerNormEpsilon)",
            "model_type": "\"\(ModelFamily.t5.rawValue)\"",
            "n_positions": "512",
            "num_decoder_layers": "\(model.decoderBlocks)",
            "num_heads": "\(model.headCount)",
            "num_layers": "\(model.encoderBlocks)",
            "pad_token_id": "\(model.padTokenID)",
            "relative_attention_max_distance": "\(model.relativeMaxDistance)",
            "relative_attention_num_buckets": "\(model.relativeBuckets)",
            "tie_word_embeddings": "\(model.tiedEmbeddings)",
            "use_cache": "true",
            "vocab_size": "\(model.vocabularySize)",
        ]
        if model.scalesDecoderOutputs != model.tiedEmbeddings {
            fields["scale_decoder_outputs"] = "\(model.scalesDecoderOutputs)"
        }
        let lines = fields.sorted { $0.key < $1.key }.map { "  \"\($0.key)\": \($0.value)" }
        return "{\n\(lines.joined(separator: ",\n"))\n}\n"
    }

    /// The rate of dropout that a model's `config.json` names, or the default of both families.
    ///
    /// - Parameter directory: The model's folder.
    /// - Returns: The rate.
    /// - Throws: `CheckpointError` for a file that cannot be read.
    public static func dropoutRate(of directory: String) throws(CheckpointError) -> Double {
        let file = "\(directory)/\(ModelConfiguration.configurationFile)"
        let object = try JSONValue.object(contentsOf: file, maxBytes: 1 << 24)
        let rate = object["dropout_rate"]?.double ?? 0.1
        return rate >= 0 && rate < 1 ? rate : 0.1
    }
}
