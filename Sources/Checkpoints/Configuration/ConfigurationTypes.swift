// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// The types of the values that transformers' configuration classes accept.
///
/// A `config.json` that transformers refuses describes no model, and what is read from it here would be a guess: `4.0`
/// experts, or a `null` that is taken for an absent key. The classes say the type of every key, and loading checks it
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/switch_transformers/configuration_switch_transformers.py,
/// and `t5` and `mt5` beside it). Keys that all classes have in common are not checked, as there. One deviation: release 5.23
/// refuses an integer where it wants a number with a point, 4.57 takes it, and so does this: the value is the same, and programs
/// in other languages write `1.0` as `1`.
enum ConfigurationTypes {
    /// What a value may be.
    ///
    /// No boolean is a number, and no number with a point is an integer.
    private enum Kind: String {
        case integer = "an integer"
        case integerOrNull = "an integer or null"
        case integersOrNull = "an integer, a list of integers or null"
        case number = "a number"
        case boolean = "true or false"
        case text = "a string"

        func accepts(_ value: JSONValue) -> Bool {
            switch (self, value) {
            case (.integer, .integer), (.number, .integer), (.number, .number), (.boolean, .bool),
                (.text, .string), (.integerOrNull, .integer), (.integersOrNull, .integer):
                true
            case (.integerOrNull, .null), (.integersOrNull, .null): true
            case (.integersOrNull, .array(let elements)):
                elements.allSatisfy { if case .integer = $0 { true } else { false } }
            default: false
            }
        }
    }

    private static let common: [String: Kind] = [
        "vocab_size": .integer, "d_model": .integer, "d_kv": .integer, "d_ff": .integer, "num_heads": .integer,
        "num_layers": .integer, "num_decoder_layers": .integerOrNull, "relative_attention_num_buckets": .integer,
        "relative_attention_max_distance": .integer, "layer_norm_epsilon": .number, "initializer_factor": .number,
        "dropout_rate": .number, "is_encoder_decoder": .boolean, "is_decoder": .boolean, "use_cache": .boolean,
        "eos_token_id": .integersOrNull, "pad_token_id": .integerOrNull,
    ]

    private static func own(_ family: ModelFamily) -> [String: Kind] {
        switch family {
        case .switchTransformers:
            [
                "num_experts": .integer, "expert_capacity": .integer, "num_sparse_encoder_layers": .integer,
                "num_sparse_decoder_layers": .integer, "encoder_sparse_step": .integer, "decoder_sparse_step": .integer,
                "router_bias": .boolean, "router_dtype": .text, "router_ignore_padding_tokens": .boolean,
                "router_jitter_noise": .number, "router_z_loss_coef": .number, "router_aux_loss_coef": .number,
                "add_router_probs": .boolean, "dense_act_fn": .text, "tie_word_embeddings": .boolean,
                "bos_token_id": .integerOrNull, "add_cross_attention": .boolean,
            ]
        case .t5: ["feed_forward_proj": .text, "classifier_dropout": .number]
        case .mt5:
            [
                "feed_forward_proj": .text, "classifier_dropout": .number, "tie_word_embeddings": .boolean,
                "bos_token_id": .integerOrNull, "decoder_start_token_id": .integerOrNull,
            ]
        // No class of transformers: the family's reader checks every key.
        case .labmlSwitch: [:]
        }
    }

    /// Other names of keys, which transformers sets after the keys themselves, null included.
    private static let otherNames = ["hidden_size", "num_attention_heads", "num_hidden_layers"]

    /// Refuses values of types that transformers refuses.
    ///
    /// - Parameters:
    ///   - values: The file's object.
    ///   - family: The model's family.
    ///   - overrides: The caller's values, in whose place the file's do not count.
    ///   - file: The file's path.
    /// - Throws: `invalidConfiguration` that names the key, its type and its value.
    static func check(
        _ values: [String: JSONValue],
        family: ModelFamily,
        overrides: [String: JSONValue],
        file: String
    ) throws(CheckpointError) {
        guard family != .labmlSwitch else { return }
        var kinds = self.common.merging(self.own(family)) { $1 }
        for name in self.otherNames { kinds[name] = .integer }
        // The other names first: a value under one of them is also under the key that it means.
        for key in self.otherNames + kinds.keys.sorted() where overrides[key] == nil {
            guard let kind = kinds[key], let value = values[key], !kind.accepts(value) else { continue }
            throw CheckpointError(
                code: .invalidConfiguration,
                message:
                    "\(key) must be \(kind.rawValue), but is \(value.kind), which transformers refuses; correct the file"
                    + (ConfigurationFields.kinds[key] == nil ? "" : " or pass an override for this key"),
                file: file
            )
        }
    }
}
