// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import RPCCore
internal import SwitchyardProtos

/// A body of `/v1/embeddings`, and the gateway's request that it means: the mean of the encoder's hidden states.
struct EmbeddingsRequest: Sendable {
    /// The gateway's request, with one entry for each input.
    var request: EncodeRequest
    /// Whether embeddings are sent as the bytes of their float32 numbers, in base64.
    var isBase64: Bool
    /// The caller's own name for its user, for the log.
    var user: String?

    /// The fields of the body.
    static let fields: [BodyField] = [
        BodyField("model", "The name of the served model.", ["type": "string"]),
        BodyField("input", "What to encode: a text, token ids, or several of one kind.", OpenAIForm.inputSchema),
        BodyField(
            "encoding_format",
            "Numbers, or base64 of float32 numbers, little-endian.",
            ["enum": ["float", "base64", nil], "default": "float"]
        ),
        BodyField("dimensions", "Only the width of the model's hidden states.", ["type": ["integer", "null"]]),
        BodyField(
            "user",
            "The caller's name for its user; it goes to the gateway's log at level debug.",
            ["type": ["string", "null"]]
        ),
    ]

    /// Reads a body.
    ///
    /// - Parameters:
    ///   - body: The body.
    ///   - model: The served model.
    /// - Throws: ``DoorFault`` naming the field that is wrong or that cannot be honoured.
    init(_ body: JSONValue, model: ModelDescription) throws(DoorFault) {
        let reader = try BodyReader(body, Self.fields)
        guard case .string(let name) = try reader.required("model", "give the served model's name") else {
            throw reader.wrong("model", reader.value("model") ?? .null, "a text")
        }
        try OpenAIForm.check(name, model)
        try reader.refuse(
            "dimensions",
            unless: { BodyReader.whole($0) == Int(model.modelWidth) },
            "this model cannot honour; its embeddings have \(model.modelWidth) dimensions"
        )
        self.user = try reader.text("user")
        switch try reader.text("encoding_format") {
        case nil, "float": self.isBase64 = false
        case "base64": self.isBase64 = true
        case let other?: throw reader.wrong("encoding_format", .string(other), "float or base64")
        }
        let inputs = try OpenAIForm.inputs(
            try reader.required("input", "give a text, a list of texts, or token ids"),
            "input",
            limit: max(1, Int(model.maxInputs))
        )
        self.request = EncodeRequest(pooling: .mean, inputs: inputs.map { EncodeInput(input: $0) })
    }

    /// The answer to a body.
    ///
    /// - Parameters:
    ///   - response: The gateway's answer.
    ///   - model: The served model.
    /// - Returns: The body.
    /// - Throws: ``DoorFault`` for the first input without an answer: OpenAI's form has no room for a part of the answers.
    func answer(_ response: EncodeResponse, model: ModelDescription) throws(DoorFault) -> JSONOutput {
        var data: [JSONOutput] = []
        var tokens = 0
        for (index, result) in response.results.enumerated() {
            if let status = result.status, status.code != 0 {
                let code = UInt8(exactly: status.code).flatMap { Status.Code(rawValue: $0) } ?? .unknown
                throw DoorFault(RPCError(code, "input[\(index)]: \(status.message)"))
            }
            tokens += Int(result.usage?.inputTokens ?? 0)
            let bytes = result.hiddenStates?.data ?? []
            data.append([
                "object": "embedding", "index": .integer(index),
                "embedding": self.isBase64
                    ? .string(OwnForm.base64(bytes)) : .array(Self.floats(bytes).map { .float($0) }),
            ])
        }
        return [
            "object": "list", "data": .array(data), "model": .string(model.name),
            "usage": ["prompt_tokens": .integer(tokens), "total_tokens": .integer(tokens)],
        ]
    }

    private static func floats(_ bytes: [UInt8]) -> [Float] {
        stride(from: 0, to: bytes.count - bytes.count % 4, by: 4)
            .map { start in
                let bits = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[start + $1]) << UInt32(8 * $1) }
                return Float(bitPattern: bits)
            }
    }
}
