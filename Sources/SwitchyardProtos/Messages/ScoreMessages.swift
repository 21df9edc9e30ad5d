// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// An input and the target to score.
public struct ScoreRequest: ProtoMessage {
    /// What goes into the encoder.
    public var input: ModelInput?

    /// What the decoder is made to say.
    public var target: ModelInput?

    /// For each token of the target, so many most likely tokens.
    public var topLogprobs: UInt32

    /// How many tokens may be dropped.
    public var dropPolicy: DropPolicy?

    /// Creates the message; each parameter is the property of that name.
    public init(
        input: ModelInput? = nil,
        target: ModelInput? = nil,
        topLogprobs: UInt32 = 0,
        dropPolicy: DropPolicy? = nil
    ) {
        self.input = input
        self.target = target
        self.topLogprobs = topLogprobs
        self.dropPolicy = dropPolicy
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ScoreRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ScoreRequest>) {
        switchyard__v1__score_request__init(c)
    }

    init(reading c: Switchyard__V1__ScoreRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            input: try Self.input(of: c, fields),
            target: try Self.target(of: c, fields),
            topLogprobs: c.top_logprobs,
            dropPolicy: try fields.message(c.drop_policy)
        )
    }

    func write(_ c: inout Switchyard__V1__ScoreRequest, _ arena: ProtoArena) {
        switch self.input {
        case .text(let text):
            c.input_case = SWITCHYARD__V1__SCORE_REQUEST__INPUT_TEXT
            c.text = arena.bytes(text)
        case .tokenIDs(let ids):
            c.input_case = SWITCHYARD__V1__SCORE_REQUEST__INPUT_INPUT_IDS
            c.input_ids = arena.message(TokenIDs(ids: ids))
        case nil:
            break
        }
        switch self.target {
        case .text(let text):
            c.target_case = SWITCHYARD__V1__SCORE_REQUEST__TARGET_TARGET_TEXT
            c.target_text = arena.bytes(text)
        case .tokenIDs(let ids):
            c.target_case = SWITCHYARD__V1__SCORE_REQUEST__TARGET_TARGET_IDS
            c.target_ids = arena.message(TokenIDs(ids: ids))
        case nil:
            break
        }
        c.top_logprobs = self.topLogprobs
        c.drop_policy = arena.message(self.dropPolicy)
    }

    /// The member of the oneof that is set.
    private static func input(of c: Switchyard__V1__ScoreRequest, _ fields: FieldReader) throws(ProtoError)
        -> ModelInput?
    {
        switch c.input_case {
        case SWITCHYARD__V1__SCORE_REQUEST__INPUT_TEXT: try fields.text(c.text, "text")
        case SWITCHYARD__V1__SCORE_REQUEST__INPUT_INPUT_IDS: try fields.tokenIDs(c.input_ids)
        default: nil
        }
    }

    /// The member of the oneof that is set.
    private static func target(of c: Switchyard__V1__ScoreRequest, _ fields: FieldReader) throws(ProtoError)
        -> ModelInput?
    {
        switch c.target_case {
        case SWITCHYARD__V1__SCORE_REQUEST__TARGET_TARGET_TEXT: try fields.text(c.target_text, "target_text")
        case SWITCHYARD__V1__SCORE_REQUEST__TARGET_TARGET_IDS: try fields.tokenIDs(c.target_ids)
        default: nil
        }
    }
}

/// How likely the target is.
public struct ScoreResponse: ProtoMessage {
    /// One entry per token of the target.
    public var logprobs: [TokenLogprob]

    /// The sum of the log-probabilities.
    public var totalLogprob: Float

    /// The mean of the negated log-probabilities: the cross-entropy.
    public var loss: Float

    /// What the call cost.
    public var usage: Usage?

    /// Creates the message; each parameter is the property of that name.
    public init(logprobs: [TokenLogprob] = [], totalLogprob: Float = 0, loss: Float = 0, usage: Usage? = nil) {
        self.logprobs = logprobs
        self.totalLogprob = totalLogprob
        self.loss = loss
        self.usage = usage
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ScoreResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ScoreResponse>) {
        switchyard__v1__score_response__init(c)
    }

    init(reading c: Switchyard__V1__ScoreResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            logprobs: try fields.messages(c.n_logprobs, c.logprobs),
            totalLogprob: c.total_logprob,
            loss: c.loss,
            usage: try fields.message(c.usage)
        )
    }

    func write(_ c: inout Switchyard__V1__ScoreResponse, _ arena: ProtoArena) {
        (c.n_logprobs, c.logprobs) = arena.messages(self.logprobs)
        c.total_logprob = self.totalLogprob
        c.loss = self.loss
        c.usage = arena.message(self.usage)
    }
}
