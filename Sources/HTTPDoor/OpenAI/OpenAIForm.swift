// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import RPCCore
internal import SwitchyardProtos
internal import SwitchyardTypes

/// What all addresses of OpenAI's dialect share.
///
/// Source: https://github.com/openai/openai-openapi/blob/2.3.0/openapi.yaml.
enum OpenAIForm {
    /// An error as OpenAI's clients read it.
    static func body(of fault: DoorFault) -> JSONOutput {
        let type =
            switch fault.status {
            case 401: "authentication_error"
            case 403: "permission_error"
            case 429: "rate_limit_error"
            case 500...: "server_error"
            default: "invalid_request_error"
            }
        return [
            "error": [
                "message": .string(fault.message), "type": .string(type), "param": JSONOutput(fault.field),
                "code": JSONOutput(fault.reason),
            ]
        ]
    }

    /// What the gateway's fields are called here.
    static let names: KeyValuePairs<String, String> = [
        "parameters.max_new_tokens": "max_tokens", "parameters.num_return_sequences": "n",
        "parameters.temperature": "temperature", "parameters.top_p": "top_p", "parameters.top_logprobs": "logprobs",
        "parameters.stop": "stop", "sequence_bias": "logit_bias", "parameters.sequence_bias": "logit_bias",
        "text": "prompt", "input_ids.ids": "prompt", "input_ids": "prompt", "target_ids.ids": "prompt",
        "target_ids": "prompt",
    ]

    /// A model's entry in the list of models.
    static func entry(_ model: ModelDescription, created: Int) -> JSONOutput {
        ["id": .string(model.name), "object": "model", "created": .integer(created), "owned_by": "switchyard"]
    }

    /// Refuses a name that is not the served model's.
    static func check(_ name: String, _ model: ModelDescription) throws(DoorFault) {
        guard name != model.name else { return }
        throw Self.unknown(name, [model])
    }

    /// The refusal of a name that no model has.
    static func unknown(_ name: String, _ models: [ModelDescription]) -> DoorFault {
        DoorFault(
            404,
            .notFound,
            "the model `\(ErrorText.shown(String(name.prefix(200))))` does not exist; this gateway serves "
                + models.map { "`\($0.name)`" }.joined(separator: " and "),
            field: "model",
            reason: "model_not_found"
        )
    }

    /// Reads what is given in place of a text: a text, texts, token ids, or lists of token ids.
    ///
    /// - Parameters:
    ///   - value: The value.
    ///   - name: The field.
    ///   - limit: The most inputs.
    /// - Returns: The inputs.
    /// - Throws: ``DoorFault`` for anything else, and for more inputs than the limit.
    static func inputs(_ value: JSONValue, _ name: String, limit: Int) throws(DoorFault) -> [ModelInput] {
        switch value {
        case .string(let text): return [.text(text)]
        case .array(let elements) where elements.isEmpty:
            throw .invalid(name, "is an empty list; give at least one")
        case .array(let elements):
            if case .integer = elements[0] {
                guard let ids = BodyReader.tokenIDs(elements) else {
                    throw .invalid(name, "holds something other than token ids of 32 bits beside token ids")
                }
                return [.tokenIDs(ids)]
            }
            guard elements.count <= limit else {
                throw .invalid(name, "has \(elements.count) entries; the limit is \(limit)")
            }
            var inputs: [ModelInput] = []
            for (index, element) in elements.enumerated() {
                inputs.append(try Self.input(element, "\(name)[\(index)]"))
            }
            return inputs
        default:
            throw .invalid(
                name,
                "is \(value.kind); it must be a text, a list of texts, or a list of token ids or of such lists"
            )
        }
    }

    private static func input(_ value: JSONValue, _ name: String) throws(DoorFault) -> ModelInput {
        switch value {
        case .string(let text): return .text(text)
        case .array(let elements):
            guard let ids = BodyReader.tokenIDs(elements), !ids.isEmpty else {
                throw .invalid(name, "is no list of token ids; give ids of 32 bits, at least the end token's")
            }
            return .tokenIDs(ids)
        default: throw .invalid(name, "is \(value.kind); it must be a text or a list of token ids")
        }
    }

    /// The schema of what ``inputs(_:_:limit:)`` reads.
    static let inputSchema: JSONOutput = [
        "oneOf": [
            ["type": "string"], ["type": "array", "items": ["type": "string"], "minItems": 1],
            ["type": "array", "items": Self.idSchema, "minItems": 1],
            ["type": "array", "items": ["type": "array", "items": Self.idSchema, "minItems": 1], "minItems": 1],
        ]
    ]

    private static let idSchema: JSONOutput = ["type": "integer", "minimum": 0, "maximum": 4_294_967_295]
}
