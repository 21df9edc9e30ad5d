// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension ModelConfiguration {
    /// The values that a field may have.
    ///
    /// They are far above every known checkpoint (switch-c-2048: 2,048 experts in 30
    /// layers, width 2,080) and low enough that products of any two of them stay far inside 64 bits.
    enum Limits {
        static let vocabularySize = 1...16_777_216
        static let width = 1...1_048_576
        static let headCount = 1...4_096
        static let blocks = 1...1_024
        static let step = 0...1_024
        static let experts = 1...65_536
        static let capacity = 1...1_000_000_000
        static let buckets = 2...65_536
        static let distance = 1...1_000_000_000
        /// Experts of all sparse layers together; bounds the work of listing a model's tensors.
        static let expertsInAllLayers = 4_194_304
    }

    /// Checks every field's range, and that the fields fit together.
    ///
    /// - Throws: `CheckpointError` with code `invalidConfiguration` that names the Hugging Face key, its limits and its
    ///   value.
    public func validate() throws(CheckpointError) {
        try Self.check("vocab_size", self.vocabularySize, Limits.vocabularySize)
        try Self.check("d_model", self.modelWidth, Limits.width)
        try Self.check("d_kv", self.keyWidth, Limits.width)
        try Self.check("d_ff", self.feedForwardWidth, Limits.width)
        try Self.check("num_heads", self.headCount, Limits.headCount)
        try Self.check("num_heads * d_kv", self.attentionWidth, Limits.width)
        if !self.design.isDecoderOnly { try Self.check("num_layers", self.encoderBlocks, Limits.blocks) }
        try Self.check("num_decoder_layers", self.decoderBlocks, Limits.blocks)
        try Self.check("encoder_sparse_step", self.encoderSparseStep, Limits.step)
        try Self.check("decoder_sparse_step", self.decoderSparseStep, Limits.step)
        if self.family == .switchTransformers {
            try Self.check("num_experts", self.expertCount, Limits.experts)
            try Self.check("expert_capacity", self.expertCapacity, Limits.capacity)
        }
        try Self.check("relative_attention_num_buckets", self.relativeBuckets, Limits.buckets)
        try Self.check("relative_attention_max_distance", self.relativeMaxDistance, Limits.distance)
        let tokens = 0...(self.vocabularySize - 1)
        try Self.check("decoder_start_token_id", self.decoderStartTokenID, tokens)
        try Self.check("pad_token_id", self.padTokenID, tokens)
        try Self.check("eos_token_id", self.endTokenID, tokens)
        for token in self.generation.endTokenIDs { try Self.check("eos_token_id", token, tokens) }
        guard self.layerNormEpsilon > 0, self.layerNormEpsilon <= 1 else {
            throw Self.invalid("layer_norm_epsilon", "must be above 0 and at most 1, but is \(self.layerNormEpsilon)")
        }
        guard self.routerDType.isWeight else {
            throw Self.invalid("router_dtype", "must be float32, bfloat16 or float16, but is \(self.routerDType)")
        }
        let experts = self.sparseLayers.count * self.expertCount
        guard experts <= Limits.expertsInAllLayers else {
            throw Self.invalid(
                "num_experts",
                "gives \(experts) experts in all sparse layers together; the limit is \(Limits.expertsInAllLayers)"
            )
        }
    }

    private static func check(_ key: String, _ value: Int, _ range: ClosedRange<Int>) throws(CheckpointError) {
        guard range.contains(value) else {
            throw self.invalid(key, "must be \(range.lowerBound) through \(range.upperBound), but is \(value)")
        }
    }

    static func invalid(_ key: String, _ complaint: String) -> CheckpointError {
        CheckpointError(
            code: .invalidConfiguration,
            message: "\(key) \(complaint); correct config.json or pass an override for this key"
        )
    }
}
