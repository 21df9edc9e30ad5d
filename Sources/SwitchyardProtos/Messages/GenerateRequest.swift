// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// An input and how to continue from it.
public struct GenerateRequest: ProtoMessage {
    /// What goes into the encoder.
    public var input: ModelInput?

    /// How to choose tokens.
    public var parameters: GenerationParameters?

    /// How many tokens may be dropped.
    public var dropPolicy: DropPolicy?

    /// Creates the message; each parameter is the property of that name.
    public init(input: ModelInput? = nil, parameters: GenerationParameters? = nil, dropPolicy: DropPolicy? = nil) {
        self.input = input
        self.parameters = parameters
        self.dropPolicy = dropPolicy
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension GenerateRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__GenerateRequest>) {
        switchyard__v1__generate_request__init(c)
    }

    init(reading c: Switchyard__V1__GenerateRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            input: try Self.input(of: c, fields),
            parameters: try fields.message(c.parameters),
            dropPolicy: try fields.message(c.drop_policy)
        )
    }

    func write(_ c: inout Switchyard__V1__GenerateRequest, _ arena: ProtoArena) {
        switch self.input {
        case .text(let text):
            c.input_case = SWITCHYARD__V1__GENERATE_REQUEST__INPUT_TEXT
            c.text = arena.bytes(text)
        case .tokenIDs(let ids):
            c.input_case = SWITCHYARD__V1__GENERATE_REQUEST__INPUT_INPUT_IDS
            c.input_ids = arena.message(TokenIDs(ids: ids))
        case nil:
            break
        }
        c.parameters = arena.message(self.parameters)
        c.drop_policy = arena.message(self.dropPolicy)
    }

    /// The member of the oneof that is set.
    private static func input(of c: Switchyard__V1__GenerateRequest, _ fields: FieldReader) throws(ProtoError)
        -> ModelInput?
    {
        switch c.input_case {
        case SWITCHYARD__V1__GENERATE_REQUEST__INPUT_TEXT: try fields.text(c.text, "text")
        case SWITCHYARD__V1__GENERATE_REQUEST__INPUT_INPUT_IDS: try fields.tokenIDs(c.input_ids)
        default: nil
        }
    }
}

/// How to choose tokens.
///
/// A zero means the model's own default.
public struct GenerationParameters: Sendable, Hashable {
    /// The most tokens to generate; the default is 20.
    public var maxNewTokens: UInt32

    /// No end of sequence before so many tokens.
    public var minNewTokens: UInt32

    /// The number of beams; 1 means greedy, or sampling with do_sample.
    public var numBeams: UInt32

    /// The power of its length that a sequence's score is divided by; a positive one favors longer beams.
    public var lengthPenalty: Float

    /// Whether to sample instead of taking the best token.
    public var doSample: Bool

    /// What logits are divided by before sampling.
    public var temperature: Float

    /// Sample from so many best tokens only.
    public var topK: UInt32

    /// Sample from the best tokens that together have this probability only.
    public var topP: Float

    /// What the logits of tokens that have come before are divided by.
    public var repetitionPenalty: Float

    /// The seed of sampling; the same seed and request give the same tokens.
    public var seed: UInt64

    /// Texts that end a sequence once they appear in it.
    public var stop: [String]

    /// The number of sequences to return.
    public var numReturnSequences: UInt32

    /// For each generated token, so many best tokens with their log-probabilities.
    public var topLogprobs: UInt32

    /// Neither scores nor log-probabilities are wanted: greedy search then leaves out logits that cannot be the best.
    public var skipScores: Bool

    /// Creates the message; each parameter is the property of that name.
    public init(
        maxNewTokens: UInt32 = 0,
        minNewTokens: UInt32 = 0,
        numBeams: UInt32 = 0,
        lengthPenalty: Float = 0,
        doSample: Bool = false,
        temperature: Float = 0,
        topK: UInt32 = 0,
        topP: Float = 0,
        repetitionPenalty: Float = 0,
        seed: UInt64 = 0,
        stop: [String] = [],
        numReturnSequences: UInt32 = 0,
        topLogprobs: UInt32 = 0,
        skipScores: Bool = false
    ) {
        self.maxNewTokens = maxNewTokens
        self.minNewTokens = minNewTokens
        self.numBeams = numBeams
        self.lengthPenalty = lengthPenalty
        self.doSample = doSample
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.repetitionPenalty = repetitionPenalty
        self.seed = seed
        self.stop = stop
        self.numReturnSequences = numReturnSequences
        self.topLogprobs = topLogprobs
        self.skipScores = skipScores
    }
}

extension GenerationParameters: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__GenerationParameters>) {
        switchyard__v1__generation_parameters__init(c)
    }

    init(reading c: Switchyard__V1__GenerationParameters, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            maxNewTokens: c.max_new_tokens,
            minNewTokens: c.min_new_tokens,
            numBeams: c.num_beams,
            lengthPenalty: c.length_penalty,
            doSample: c.do_sample != 0,
            temperature: c.temperature,
            topK: c.top_k,
            topP: c.top_p,
            repetitionPenalty: c.repetition_penalty,
            seed: c.seed,
            stop: try fields.strings(c.n_stop, c.stop, "stop"),
            numReturnSequences: c.num_return_sequences,
            topLogprobs: c.top_logprobs,
            skipScores: c.skip_scores != 0
        )
    }

    func write(_ c: inout Switchyard__V1__GenerationParameters, _ arena: ProtoArena) {
        c.max_new_tokens = self.maxNewTokens
        c.min_new_tokens = self.minNewTokens
        c.num_beams = self.numBeams
        c.length_penalty = self.lengthPenalty
        c.do_sample = self.doSample ? 1 : 0
        c.temperature = self.temperature
        c.top_k = self.topK
        c.top_p = self.topP
        c.repetition_penalty = self.repetitionPenalty
        c.seed = self.seed
        (c.n_stop, c.stop) = arena.texts(self.stop)
        c.num_return_sequences = self.numReturnSequences
        c.top_logprobs = self.topLogprobs
        c.skip_scores = self.skipScores ? 1 : 0
    }
}
