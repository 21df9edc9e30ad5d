// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import SwitchyardProtos

/// A body of `/generate` or `/generate_stream`, and the gateway's request that it means.
struct TextGenerationRequest: Sendable {
    /// The gateway's request.
    var request: GenerateRequest
    /// The text of the input, for answers that repeat it.
    var inputs: String
    /// Whether an answer begins with the input.
    var returnsInput: Bool
    /// Whether to answer with more than the text.
    var hasDetails: Bool
    /// Whether to answer with the tokens that the decoder starts from.
    var hasPrefill: Bool
    /// How many of the most likely tokens come with each token.
    var topTokens: Int
    /// Whether tokens are sent as they come.
    var streams: Bool

    /// The fields of the body.
    static let fields: [BodyField] = [
        BodyField("inputs", "The text that goes into the encoder.", ["type": "string"]),
        BodyField(
            "parameters",
            "How to choose tokens.",
            [
                "oneOf": [
                    [
                        "type": "object", "additionalProperties": false,
                        "properties": .object(Self.parameterFields.map { (name: $0.name, value: $0.schema) }),
                    ], ["type": "null"],
                ]
            ]
        ),
    ]

    /// The fields of the body at `/`, which serves both.
    static let rootFields =
        Self.fields + [BodyField("stream", "Whether to send tokens as they come.", ["type": ["boolean", "null"]])]

    /// The fields of `parameters`.
    static let parameterFields: [BodyField] = [
        BodyField(
            "best_of",
            "Sequences to generate; the most likely one is the answer.",
            Self.optional("integer", ["minimum": 1])
        ),
        BodyField(
            "temperature",
            "The divisor of logits; tokens are sampled unless it is 1.",
            Self.optional("number", Self.positiveRange)
        ),
        BodyField(
            "repetition_penalty",
            "The divisor of the logits of tokens that have appeared.",
            Self.optional("number", Self.positiveRange)
        ),
        BodyField("frequency_penalty", "Only 0.", ["enum": [0, nil]]),
        BodyField(
            "top_k",
            "Sample from this many of the most likely tokens.",
            Self.optional("integer", ["minimum": 1])
        ),
        BodyField(
            "top_p",
            "Sample from the most likely tokens that together have this probability.",
            Self.optional("number", Self.shareRange)
        ),
        BodyField(
            "typical_p",
            "Sample from the most typical tokens that together have this probability.",
            Self.optional("number", Self.shareRange)
        ),
        BodyField("do_sample", "Whether to sample.", Self.optional("boolean")),
        BodyField(
            "max_new_tokens",
            "The most tokens of the answer.",
            Self.optional("integer", ["minimum": 1, "default": 100])
        ),
        BodyField("return_full_text", "Whether the answer begins with the input.", Self.optional("boolean")),
        BodyField(
            "stop",
            "Texts that end the answer, which does not contain them.",
            ["type": ["array", "null"], "items": ["type": "string", "minLength": 1]]
        ),
        BodyField("truncate", "Only null: send a shorter text.", ["type": "null"]),
        BodyField("watermark", "Only false.", ["enum": [false, nil]]),
        BodyField(
            "details",
            "Whether to answer with tokens, their log-probabilities and the reason of the end.",
            Self.optional("boolean")
        ),
        BodyField(
            "decoder_input_details",
            "Whether details name the tokens that the decoder starts from.",
            Self.optional("boolean")
        ),
        BodyField("seed", "The seed of sampling.", Self.optional("integer", ["minimum": 0])),
        BodyField(
            "top_n_tokens",
            "How many of the most likely tokens come with each token of the details.",
            Self.optional("integer", ["minimum": 0, "maximum": 20])
        ),
        BodyField("grammar", "Only null.", ["type": "null"]),
        BodyField("adapter_id", "Only null.", ["type": "null"]),
    ]

    /// The numbers above 0 that are neither 0 nor infinite once they are rounded to 32 bits: between 2^-150 and 2^128 - 2^103.
    private static let positiveRange: JSONOutput = [
        "exclusiveMinimum": .raw("7.006492321624085e-46"), "exclusiveMaximum": .raw("3.4028235677973366e38"),
    ]
    private static let shareRange: JSONOutput = ["exclusiveMinimum": .raw("7.006492321624085e-46"), "maximum": 1]

    private static func optional(_ type: String, _ more: JSONOutput = [:]) -> JSONOutput {
        guard case .object(let members) = more else { return ["type": [.string(type), "null"]] }
        return JSONOutput.object([(name: "type", value: [.string(type), "null"])]).adding(members)
    }

    /// Reads a body.
    ///
    /// - Parameters:
    ///   - body: The body.
    ///   - streams: Whether tokens are sent as they come; nil where the body says that.
    ///   - model: The served model, whose limits count.
    ///   - maxStops: Stop strings that a request may have.
    /// - Throws: ``DoorFault`` naming the field that is wrong or that cannot be honoured.
    init(_ body: JSONValue, streams: Bool?, model: ModelDescription, maxStops: Int) throws(DoorFault) {
        let root = try BodyReader(body, streams == nil ? Self.rootFields : Self.fields)
        let inputs = try root.required("inputs", "give the text to answer")
        guard case .string(let text) = inputs else { throw root.wrong("inputs", inputs, "a text") }
        self.inputs = text
        if let streams { self.streams = streams } else { self.streams = try root.flag("stream") ?? false }
        let reader = try BodyReader(root.value("parameters") ?? .object([:]), Self.parameterFields, path: "parameters")
        try Self.refuseOthers(reader)
        self.returnsInput = try reader.flag("return_full_text") ?? false
        self.hasDetails = try reader.flag("details") ?? false
        self.hasPrefill = try reader.flag("decoder_input_details") ?? false
        self.topTokens = try reader.integer("top_n_tokens", in: 0...20) ?? 0
        var parameters = try Self.parameters(reader, model, maxStops: maxStops)
        // Every token of a stream and of details comes with its log-probability; a text alone needs none.
        if self.streams || self.hasDetails || self.hasPrefill {
            parameters.topLogprobs = UInt32(max(1, self.topTokens))
        }
        self.request = GenerateRequest(input: .text(text), parameters: parameters)
    }

    private static func refuseOthers(_ reader: BodyReader) throws(DoorFault) {
        try reader.refuse(
            "frequency_penalty",
            unless: { $0.double == 0 },
            "the model's search does not know; leave it out, or set repetition_penalty"
        )
        try reader.refuse(
            "truncate",
            unless: { _ in false },
            "this gateway does not do, since it would drop what was asked; send a shorter text"
        )
        try reader.refuse(
            "watermark",
            unless: { $0 == .bool(false) },
            "this gateway does not do; leave it out or set it to false"
        )
        try reader.refuse("grammar", unless: { _ in false }, "this gateway does not do; leave it out")
        try reader.refuse(
            "adapter_id",
            unless: { _ in false },
            "this gateway does not do: an adapter is merged when it starts; leave it out"
        )
    }

    private static func parameters(
        _ reader: BodyReader,
        _ model: ModelDescription,
        maxStops: Int
    ) throws(DoorFault) -> GenerationParameters {
        var parameters = GenerationParameters()
        // The server's default, as far as this gateway goes.
        let most =
            try reader.integer("max_new_tokens", in: 1...Int(Int32.max)) ?? min(100, max(1, Int(model.maxNewTokens)))
        parameters.maxNewTokens = UInt32(most)
        parameters.repetitionPenalty = try Self.positive(reader, "repetition_penalty", to: .infinity)
        let temperature = try Self.positive(reader, "temperature", to: .infinity)
        let topK = try reader.integer("top_k", in: 1...Int(Int32.max))
        let topP = try Self.positive(reader, "top_p", to: 1)
        let typicalP = try Self.positive(reader, "typical_p", to: 1)
        let narrows = topK != nil || (topP ?? 1) < 1 || (typicalP ?? 1) < 1 || (temperature ?? 1) != 1
        let samples = try reader.flag("do_sample")
        if samples == true || narrows {
            parameters.doSample = true
            parameters.temperature = temperature ?? 1
            parameters.topK = UInt32(topK ?? 0)
            parameters.topP = topP ?? 1
            parameters.typicalP = typicalP
        } else if samples == false {
            parameters.doSample = false
        }
        let bestOf = try reader.integer("best_of", in: 1...Int(Int32.max)) ?? 1
        if bestOf > 1 { parameters.numReturnSequences = UInt32(bestOf) }
        if let seed = try reader.integer("seed", in: 0...Int.max) { parameters.seed = UInt64(seed) }
        let stops = try reader.texts("stop") ?? []
        guard stops.count <= maxStops else {
            throw .invalid("parameters.stop", "has \(stops.count) texts; the limit is \(maxStops)")
        }
        if let index = stops.firstIndex(of: "") {
            throw .invalid("parameters.stop", "has an empty text at \(index); leave it out")
        }
        parameters.stop = stops
        return parameters
    }

    private static func positive(_ reader: BodyReader, _ name: String, to limit: Double) throws(DoorFault) -> Float? {
        guard let value = reader.value(name) else { return nil }
        guard let number = value.double, number > 0, number <= limit, Float(number) > 0, Float(number).isFinite else {
            throw reader.wrong(name, value, limit == 1 ? "a number above 0 and at most 1" : "a number above 0")
        }
        return Float(number)
    }
}
