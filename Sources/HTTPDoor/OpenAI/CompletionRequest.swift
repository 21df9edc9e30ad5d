// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import MessageJSON
internal import SwitchyardProtos

/// A body of `/v1/completions`, and the gateway's requests that it means.
///
/// What OpenAI's API leaves to the server is the model's own: a body without `temperature` and `top_p` is answered as the
/// model's settings say, which for T5 means the most likely token. `max_tokens` is 16 where it is left out, as the API says.
struct CompletionRequest: Sendable {
    /// One request for each prompt.
    var requests: [GenerateRequest]
    /// Answers to each prompt.
    var count: Int
    /// Sequences that are generated for each prompt; the most likely ones are the answers.
    var bestOf: Int
    /// How many of the most likely tokens come with each token; nil for no log-probabilities at all.
    var logprobs: Int?
    /// Whether tokens are sent as they come.
    var streams: Bool
    /// Whether a stream ends with what it cost.
    var includesUsage: Bool
    /// Whether each prompt comes back before its answer.
    var echoes: Bool
    /// Whether there is an answer at all: of a prompt that comes back, its log-probabilities may be all that is wanted.
    var generates: Bool
    /// The caller's own name for its user, for the log.
    var user: String?

    /// The fields of the body.
    static let fields: [BodyField] = [
        BodyField("model", "The name of the served model.", ["type": "string"]),
        BodyField(
            "prompt",
            "What goes into the encoder, or what a model without one continues: a text, token ids, or several of one kind.",
            OpenAIForm.inputSchema
        ),
        BodyField(
            "max_tokens",
            "The most tokens of an answer; 0, which only echo may have, is none.",
            Self.optional("integer", ["minimum": 0, "default": 16])
        ),
        BodyField(
            "n",
            "Answers to each prompt.",
            Self.optional("integer", ["minimum": 1, "maximum": 128, "default": 1])
        ),
        BodyField(
            "best_of",
            "Sequences to generate for each prompt; the n most likely by the mean of their tokens are the answers.",
            Self.optional("integer", ["minimum": 1, "maximum": 128])
        ),
        BodyField(
            "temperature",
            "Above 0 tokens are sampled; 0 takes the most likely token. Left out, the model's own settings count.",
            Self.optional("number", ["minimum": 0, "maximum": 2])
        ),
        BodyField(
            "top_p",
            "Sample from the most likely tokens that together have this probability; 0 is the most likely one alone.",
            Self.optional("number", ["minimum": 0, "maximum": 1])
        ),
        BodyField(
            "seed",
            "The seed of sampling.",
            Self.optional("integer", ["minimum": .raw("-9223372036854775808"), "maximum": .raw("9223372036854775807")])
        ),
        BodyField(
            "stop",
            "Texts that end an answer, which does not contain them.",
            [
                "oneOf": [
                    ["type": "string", "minLength": 1],
                    ["type": "array", "items": ["type": "string", "minLength": 1]], ["type": "null"],
                ]
            ]
        ),
        BodyField(
            "logprobs",
            "How many of the most likely tokens come with each token.",
            Self.optional("integer", ["minimum": 0, "maximum": 5])
        ),
        BodyField(
            "logit_bias",
            "What is added to the scores of tokens, by id.",
            ["type": ["object", "null"], "additionalProperties": ["type": "number", "minimum": -100, "maximum": 100]]
        ),
        BodyField("stream", "Whether to send tokens as they come.", Self.optional("boolean")),
        BodyField(
            "stream_options",
            "Whether a stream ends with what it cost.",
            [
                "type": ["object", "null"],
                "properties": [
                    "include_usage": Self.optional("boolean"), "include_obfuscation": ["enum": [false, nil]],
                ], "additionalProperties": false,
            ]
        ),
        BodyField(
            "user",
            "The caller's name for its user; it goes to the gateway's log at level debug.",
            Self.optional("string")
        ),
        BodyField(
            "echo",
            "Whether the prompt comes back before the answer, with the log-probabilities of its tokens if logprobs is set. With an "
                + "encoder, </s> in the prompt ends the encoder's text; what follows begins the decoder's sequence and is scored.",
            Self.optional("boolean")
        ),
        BodyField("suffix", "Only null or empty: write <extra_id_0> where text is missing.", ["enum": ["", nil]]),
        BodyField("presence_penalty", "Only 0.", ["enum": [0, nil]]),
        BodyField("frequency_penalty", "Only 0.", ["enum": [0, nil]]),
        BodyField(
            "switchyard",
            "Fields of switchyard.v1.GenerateRequest that this dialect lacks, such as parameters.num_beams and drop_policy.",
            ["oneOf": [["$ref": "#/components/schemas/GenerateRequest"], ["type": "null"]]]
        ),
    ]

    private static func optional(_ type: String, _ more: JSONOutput = [:]) -> JSONOutput {
        guard case .object(let members) = more else { return ["type": [.string(type), "null"]] }
        return JSONOutput.object([(name: "type", value: [.string(type), "null"])]).adding(members)
    }

    /// Reads a body.
    ///
    /// - Parameters:
    ///   - body: The body.
    ///   - model: The served model, whose limits count.
    ///   - maxStops: Stop strings that a request may have.
    /// - Throws: ``DoorFault`` naming the field that is wrong or that cannot be honoured.
    init(_ body: JSONValue, model: ModelDescription, maxStops: Int) throws(DoorFault) {
        let reader = try BodyReader(body, Self.fields)
        guard case .string(let name) = try reader.required("model", "give the served model's name") else {
            throw reader.wrong("model", reader.value("model") ?? .null, "a text")
        }
        try OpenAIForm.check(name, model)
        try Self.refuseOthers(reader)
        self.requests = []
        self.streams = try reader.flag("stream") ?? false
        self.includesUsage = try Self.includesUsage(reader, streams: self.streams)
        self.echoes = try reader.flag("echo") ?? false
        guard !self.echoes || !self.streams else {
            throw .invalid(
                "echo",
                "is true, but a prompt's log-probabilities are not known token by token; set stream to false"
            )
        }
        self.generates = true
        self.user = try reader.text("user")
        self.count = try reader.integer("n", in: 1...128) ?? 1
        self.bestOf = try reader.integer("best_of", in: 1...128) ?? self.count
        guard self.bestOf >= self.count else {
            throw .invalid("best_of", "is \(self.bestOf), but n is \(self.count); it must be at least n")
        }
        guard self.bestOf == self.count || !self.streams else {
            throw .invalid(
                "best_of",
                "is \(self.bestOf), but nothing can be streamed before the best are known; set stream to false"
            )
        }
        self.logprobs = try reader.integer("logprobs", in: 0...5)
        let prompts = try OpenAIForm.inputs(
            try reader.required("prompt", "give a text, a list of texts, or token ids"),
            "prompt",
            limit: max(1, Int(model.maxInputs))
        )
        var request = try Self.base(reader, echoes: self.echoes)
        var parameters = request.parameters ?? GenerationParameters()
        let fewest = self.echoes ? 0 : 1
        let most =
            try reader.integer("max_tokens", in: fewest...Int(Int32.max)) ?? min(16, max(1, Int(model.maxNewTokens)))
        self.generates = most > 0
        parameters.maxNewTokens = UInt32(max(1, most))
        try self.apply(reader, to: &parameters, maxStops: maxStops)
        request.parameters = parameters
        self.requests = prompts.map { prompt in
            var single = request
            single.input = prompt
            return single
        }
    }

    /// Refuses what the model cannot do.
    private static func refuseOthers(_ reader: BodyReader) throws(DoorFault) {
        let isZero: (JSONValue) -> Bool = { $0.double == 0 }
        try reader.refuse(
            "suffix",
            unless: { $0 == .string("") },
            "this dialect does not carry to the model: write <extra_id_0> into the prompt where text is missing"
        )
        try reader.refuse(
            "presence_penalty",
            unless: isZero,
            "the model's search does not know; leave it out or set it to 0"
        )
        try reader.refuse(
            "frequency_penalty",
            unless: isZero,
            "the model's search does not know; leave it out, or set switchyard.parameters.repetition_penalty"
        )
    }

    private static func includesUsage(_ reader: BodyReader, streams: Bool) throws(DoorFault) -> Bool {
        guard let value = reader.value("stream_options") else { return false }
        guard streams else { throw .invalid("stream_options", "is set, but stream is not true; leave it out") }
        let known = [BodyField("include_usage", "", [:]), BodyField("include_obfuscation", "", [:])]
        let options = try BodyReader(value, known, path: "stream_options")
        try options.refuse(
            "include_obfuscation",
            unless: { $0 == .bool(false) },
            "this gateway does not do; leave it out or set it to false"
        )
        return try options.flag("include_usage") ?? false
    }

    /// The fields of the gateway's own request that the body brings along.
    private static func base(_ reader: BodyReader, echoes: Bool) throws(DoorFault) -> GenerateRequest {
        guard let value = reader.value("switchyard") else { return GenerateRequest() }
        let request: GenerateRequest = try OwnForm.message(value, "switchyard.v1.GenerateRequest", path: "switchyard")
        let theirs = [
            ("input", request.input != nil, "prompt"), ("return_routes", request.returnRoutes, "POST /v1/generate"),
            ("return_receipt", request.returnReceipt, "POST /v1/generate"),
            ("parameters.max_new_tokens", request.parameters?.maxNewTokens != nil, "max_tokens"),
            ("parameters.num_return_sequences", request.parameters?.numReturnSequences != nil, "n"),
            ("parameters.temperature", request.parameters?.temperature != nil, "temperature"),
            ("parameters.do_sample", request.parameters?.doSample != nil, "temperature"),
            ("parameters.top_p", request.parameters?.topP != nil, "top_p"),
            ("parameters.seed", request.parameters?.seed != nil, "seed"),
            ("parameters.stop", !(request.parameters?.stop ?? []).isEmpty, "stop"),
            ("parameters.top_logprobs", (request.parameters?.topLogprobs ?? 0) > 0, "logprobs"),
            ("parameters.sequence_bias", request.parameters?.sequenceBias != nil, "logit_bias"),
            ("decoder_prefix", echoes && request.decoderPrefix != nil, "the part of the prompt after </s>"),
        ]
        if let (field, _, instead) = theirs.first(where: \.1) {
            throw .invalid("switchyard.\(field)", "is set; use \(instead) for that")
        }
        guard !echoes || request.parameters?.decoderStartTokenID == nil else {
            throw .invalid(
                "switchyard.parameters.decoder_start_token_id",
                "is set, but with echo the decoder begins with the model's own; leave it out"
            )
        }
        return request
    }

    /// Lays the body's fields over the parameters.
    private func apply(
        _ reader: BodyReader,
        to parameters: inout GenerationParameters,
        maxStops: Int
    ) throws(DoorFault) {
        if self.bestOf > 1 { parameters.numReturnSequences = UInt32(self.bestOf) }
        let temperature = try reader.number("temperature", in: 0...2)
        let topP = try reader.number("top_p", in: 0...1)
        switch (temperature, topP) {
        case (nil, nil), (nil, 1?): break
        case (0?, _), (_, 0?):
            // Of the most likely token alone nothing can be drawn.
            parameters.doSample = false
        default:
            parameters.doSample = true
            parameters.temperature = temperature ?? 1
            parameters.topP = topP ?? 1
            // Neither is known to this dialect; the model's own are set aside as they would narrow the choice unasked.
            if parameters.topK == nil { parameters.topK = 0 }
        }
        if let seed = reader.value("seed") {
            guard let number = BodyReader.whole(seed) else {
                throw reader.wrong("seed", seed, "a whole number of 64 bits")
            }
            parameters.seed = UInt64(bitPattern: Int64(number))
        }
        parameters.stop = try Self.stops(reader, limit: maxStops)
        if let logprobs = self.logprobs {
            parameters.topLogprobs = UInt32(max(1, logprobs))
        } else if self.bestOf == self.count {
            // No score is asked for.
            parameters.skipScores = true
        }
        try Self.applyBias(reader, to: &parameters)
    }

    private static func stops(_ reader: BodyReader, limit: Int) throws(DoorFault) -> [String] {
        guard let value = reader.value("stop") else { return [] }
        var stops: [String] = []
        if case .string(let text) = value { stops = [text] } else { stops = try reader.texts("stop") ?? [] }
        guard stops.count <= limit else { throw .invalid("stop", "has \(stops.count) texts; the limit is \(limit)") }
        if let index = stops.firstIndex(of: "") {
            throw .invalid("stop", "has an empty text at \(index); leave it out")
        }
        return stops
    }

    private static func applyBias(_ reader: BodyReader, to parameters: inout GenerationParameters) throws(DoorFault) {
        guard let value = reader.value("logit_bias") else { return }
        guard case .object(let biases) = value else {
            throw reader.wrong("logit_bias", value, "an object of token ids")
        }
        guard !biases.isEmpty else { return }
        var list: [SequenceBias] = []
        for (key, value) in biases.sorted(by: { $0.key < $1.key }) {
            guard let id = UInt32(key), "\(id)" == key else {
                throw .invalid("logit_bias", "has the key \"\(key.prefix(80))\"; keys must be token ids")
            }
            guard let number = value.double, (-100...100).contains(number) else {
                throw .invalid("logit_bias", "is \(value.kind) for token \(id); it must be a number from -100 to 100")
            }
            list.append(SequenceBias(tokens: [id], bias: Float(number)))
        }
        parameters.sequenceBias = SequenceBiases(biases: list)
    }
}
