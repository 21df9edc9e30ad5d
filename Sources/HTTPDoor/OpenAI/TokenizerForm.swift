// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import SwitchyardProtos

/// The model's tokenizer as vLLM's addresses beside OpenAI's give it, so that clients which count tokens need no copy of it.
///
/// Source: https://github.com/vllm-project/vllm/blob/v0.11.0/vllm/entrypoints/openai/protocol.py, `TokenizeCompletionRequest`,
/// `DetokenizeRequest` and `TokenizerInfoResponse`. Deviations: the model's name may be left out but not be another; and of the
/// tokenizer's settings only the special tokens come, which are what clients read.
enum TokenizerForm {
    /// The fields of a body of `/tokenize`.
    static let fields: [BodyField] = [
        BodyField("prompt", "The text.", ["type": "string"]), Self.model,
        BodyField(
            "add_special_tokens",
            "Whether the end token that the tokenizer adds is among the tokens.",
            ["type": ["boolean", "null"], "default": true]
        ),
        BodyField(
            "return_token_strs",
            "Whether the text of each token comes too.",
            ["type": ["boolean", "null"], "default": false]
        ),
    ]

    /// The fields of a body of `/detokenize`.
    static let reverseFields: [BodyField] = [
        BodyField(
            "tokens",
            "The token ids.",
            ["type": "array", "items": ["type": "integer", "minimum": 0, "maximum": 4_294_967_295]]
        ), Self.model,
    ]

    private static let model = BodyField("model", "The name of the served model.", ["type": ["string", "null"]])

    /// What a body of `/tokenize` asks for.
    struct Request: Sendable {
        /// The text.
        var text: String
        /// Whether the tokenizer's own end token is wanted.
        var addsSpecial: Bool
        /// Whether the texts of tokens are wanted.
        var returnsTexts: Bool

        init(_ body: JSONValue, model: ModelDescription) throws(DoorFault) {
            let reader = try BodyReader(body, TokenizerForm.fields)
            if let name = try reader.text("model") { try OpenAIForm.check(name, model) }
            guard case .string(let text) = try reader.required("prompt", "give a text") else {
                throw reader.wrong("prompt", reader.value("prompt") ?? .null, "a text")
            }
            self.text = text
            self.addsSpecial = try reader.flag("add_special_tokens") ?? true
            self.returnsTexts = try reader.flag("return_token_strs") ?? false
        }

        /// The answer.
        ///
        /// - Parameters:
        ///   - ids: The text's tokens, without a special one.
        ///   - backend: The gateway.
        /// - Returns: The body.
        func answer(_ ids: [UInt32], _ backend: any DoorBackend) -> JSONOutput {
            let added = self.addsSpecial ? backend.specialTokens.added : nil
            let tokens = ids + (added.map { [$0] } ?? [])
            return [
                "count": .integer(tokens.count), "max_model_len": .integer(Int(backend.model.maxInputTokens)),
                "tokens": .array(tokens.map { .integer(Int($0)) }),
                "token_strs": self.returnsTexts ? .array(tokens.map { .string(backend.text(of: $0)) }) : nil,
            ]
        }
    }

    /// The text of the tokens that a body of `/detokenize` names.
    static func text(_ body: JSONValue, _ backend: any DoorBackend) throws(DoorFault) -> JSONOutput {
        let reader = try BodyReader(body, Self.reverseFields)
        let model = backend.model
        if let name = try reader.text("model") { try OpenAIForm.check(name, model) }
        let value = try reader.required("tokens", "give a list of token ids")
        guard case .array(let elements) = value, let ids = BodyReader.tokenIDs(elements) else {
            throw reader.wrong("tokens", value, "a list of token ids of 32 bits")
        }
        if let place = ids.firstIndex(where: { $0 >= model.vocabularySize }) {
            throw .invalid(
                "tokens[\(place)]",
                "is \(ids[place]); the vocabulary ends at \(Int(model.vocabularySize) - 1)"
            )
        }
        return ["prompt": .string(backend.texts(of: ids).joined())]
    }

    /// What the tokenizer's special tokens are.
    static func info(_ backend: any DoorBackend) -> JSONOutput {
        let special = backend.specialTokens
        return [
            "tokenizer_class": "switchyard", "model_max_length": .integer(Int(backend.model.maxInputTokens)),
            "bos_token": nil, "eos_token": JSONOutput(special.end), "pad_token": JSONOutput(special.padding),
            "chat_template": nil,
        ]
    }
}
