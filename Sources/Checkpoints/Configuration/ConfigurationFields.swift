// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// The fields of one configuration file with the caller's overrides applied, read by type.
struct ConfigurationFields {
    /// The type that an override's text is read as.
    enum Kind: String {
        case integer = "an integer"
        case number = "a number"
        case boolean = "true or false"
        case text = "a word"
    }

    /// Every key that an override may set.
    static let kinds: [String: Kind] = [
        "vocab_size": .integer, "d_model": .integer, "d_kv": .integer, "d_ff": .integer, "num_heads": .integer,
        "num_layers": .integer, "num_decoder_layers": .integer, "num_sparse_encoder_layers": .integer,
        "num_sparse_decoder_layers": .integer, "encoder_sparse_step": .integer, "decoder_sparse_step": .integer,
        "sparse_step_rule": .text, "num_experts": .integer, "expert_capacity": .integer, "router_bias": .boolean,
        "router_dtype": .text, "layer_norm_epsilon": .number, "relative_attention_num_buckets": .integer,
        "relative_attention_max_distance": .integer, "tie_word_embeddings": .boolean,
        "decoder_start_token_id": .integer,
        "eos_token_id": .integer, "pad_token_id": .integer, "dense_act_fn": .text, "feed_forward_proj": .text,
        "is_gated_act": .boolean, "scale_decoder_outputs": .boolean, "is_scale_prob": .boolean,
        "dropped_tokens": .text,
    ]

    /// The file, for messages.
    let file: String
    private let values: [String: JSONValue]

    /// - Parameters:
    ///   - values: The file's object.
    ///   - file: The file's path.
    init(values: [String: JSONValue], file: String) {
        self.values = values
        self.file = file
    }

    /// Reads the overrides' texts as values of their keys' types.
    static func parse(overrides: [String: String]) throws(CheckpointError) -> [String: JSONValue] {
        var values: [String: JSONValue] = [:]
        for (key, text) in overrides.sorted(by: { $0.key < $1.key }) {
            guard let kind = self.kinds[key] else {
                throw CheckpointError(
                    code: .unknownOverride,
                    message:
                        "there is no configuration key \"\(key)\" to override\(Self.suggestion(for: key)); the keys are "
                        + self.kinds.keys.sorted().joined(separator: ", ")
                )
            }
            guard let value = self.parse(text, as: kind) else {
                throw CheckpointError(
                    code: .invalidConfiguration,
                    message: "the override of \(key) must be \(kind.rawValue), but is \"\(text)\""
                )
            }
            values[key] = value
        }
        return values
    }

    private static func parse(_ text: String, as kind: Kind) -> JSONValue? {
        switch kind {
        case .integer: Int(text).map { .integer($0) }
        case .number: Double(text).map { .number($0) }
        case .boolean: Bool(text).map { .bool($0) }
        case .text: text.isEmpty ? nil : .string(text)
        }
    }

    /// The value of a key; `nil` where it is absent or null.
    subscript(key: String) -> JSONValue? {
        guard let value = self.values[key], value != .null else { return nil }
        return value
    }

    /// Whether the key is present and null, which transformers does not always treat as absent.
    func hasNull(_ key: String) -> Bool { self.values[key] == .null }

    /// Every key of the file and the overrides, null ones included.
    var keys: Dictionary<String, JSONValue>.Keys { self.values.keys }

    func integer(_ key: String) throws(CheckpointError) -> Int? {
        guard let value = self[key] else { return nil }
        guard case .integer(let integer) = value else { throw self.wrongType(key, .integer, value) }
        return integer
    }

    func boolean(_ key: String) throws(CheckpointError) -> Bool? {
        guard let value = self[key] else { return nil }
        guard case .bool(let boolean) = value else { throw self.wrongType(key, .boolean, value) }
        return boolean
    }

    func double(_ key: String) throws(CheckpointError) -> Double? {
        guard let value = self[key] else { return nil }
        guard let number = value.double else { throw self.wrongType(key, .number, value) }
        return number
    }

    func number(_ key: String) throws(CheckpointError) -> Float? {
        guard let value = self[key] else { return nil }
        switch value {
        case .integer(let integer): return Float(integer)
        case .number(let number): return Float(number)
        default: throw self.wrongType(key, .number, value)
        }
    }

    func text(_ key: String) throws(CheckpointError) -> String? {
        guard let value = self[key] else { return nil }
        guard case .string(let string) = value else { throw self.wrongType(key, .text, value) }
        return string
    }

    /// An integer or a list of integers, as `eos_token_id` may be.
    func integers(_ key: String) throws(CheckpointError) -> [Int]? {
        guard let value = self[key] else { return nil }
        guard case .array(let elements) = value else { return try self.integer(key).map { [$0] } }
        guard !elements.isEmpty, elements.count <= 64 else {
            throw self.failure("\(key) must list 1 through 64 integers, but lists \(elements.count)")
        }
        var integers: [Int] = []
        for element in elements {
            guard case .integer(let integer) = element else { throw self.wrongType(key, .integer, element) }
            integers.append(integer)
        }
        return integers
    }

    func wrongType(_ key: String, _ kind: Kind, _ value: JSONValue) -> CheckpointError {
        self.failure("\(key) must be \(kind.rawValue), but is \(value.kind)")
    }

    func failure(_ complaint: String, code: CheckpointError.Code = .invalidConfiguration) -> CheckpointError {
        CheckpointError(
            code: code,
            message: "\(complaint); correct the file or pass an override for this key",
            file: self.file
        )
    }
}
