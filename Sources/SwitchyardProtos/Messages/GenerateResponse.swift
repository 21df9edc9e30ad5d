// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// The generated sequences, best first.
public struct GenerateResponse: ProtoMessage {
    /// As many as num_return_sequences asked for.
    public var generations: [Generation]

    /// What the call cost.
    public var usage: Usage?

    /// Creates the message; each parameter is the property of that name.
    public init(generations: [Generation] = [], usage: Usage? = nil) {
        self.generations = generations
        self.usage = usage
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension GenerateResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__GenerateResponse>) {
        switchyard__v1__generate_response__init(c)
    }

    init(reading c: Switchyard__V1__GenerateResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            generations: try fields.messages(c.n_generations, c.generations),
            usage: try fields.message(c.usage)
        )
    }

    func write(_ c: inout Switchyard__V1__GenerateResponse, _ arena: ProtoArena) {
        (c.n_generations, c.generations) = arena.messages(self.generations)
        c.usage = arena.message(self.usage)
    }
}

/// One generated sequence.
public struct Generation: Sendable, Hashable {
    /// The text, special tokens kept: sentinels carry the answer.
    public var text: String

    /// The token ids, without the decoder start token.
    public var tokenIDs: [UInt32]

    /// Why the sequence ended.
    public var finishReason: FinishReason

    /// The sum of the tokens' log-probabilities divided by the number of tokens to the power of length_penalty: with the
    /// default of 1, their mean.
    ///
    /// With beams the log-probabilities are those after repetition_penalty and min_new_tokens (sequences_scores in
    /// transformers); otherwise they are the model's own. With skip_scores 0, except with beams.
    public var score: Float

    /// One entry per token, if top_logprobs asked for them.
    public var logprobs: [TokenLogprob]

    /// Creates the message; each parameter is the property of that name.
    public init(
        text: String = "",
        tokenIDs: [UInt32] = [],
        finishReason: FinishReason = .unspecified,
        score: Float = 0,
        logprobs: [TokenLogprob] = []
    ) {
        self.text = text
        self.tokenIDs = tokenIDs
        self.finishReason = finishReason
        self.score = score
        self.logprobs = logprobs
    }
}

extension Generation: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__Generation>) {
        switchyard__v1__generation__init(c)
    }

    init(reading c: Switchyard__V1__Generation, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            text: try fields.string(c.text, "text"),
            tokenIDs: fields.array(c.n_token_ids, c.token_ids),
            finishReason: FinishReason(rawValue: c.finish_reason.rawValue) ?? .unspecified,
            score: c.score,
            logprobs: try fields.messages(c.n_logprobs, c.logprobs)
        )
    }

    func write(_ c: inout Switchyard__V1__Generation, _ arena: ProtoArena) {
        c.text = arena.bytes(self.text)
        (c.n_token_ids, c.token_ids) = arena.array(self.tokenIDs)
        c.finish_reason = Switchyard__V1__FinishReason(self.finishReason.rawValue)
        c.score = self.score
        (c.n_logprobs, c.logprobs) = arena.messages(self.logprobs)
    }
}

/// Something that happened while generating.
public struct GenerateEvent: ProtoMessage {
    /// What can happen.
    public enum Event: Sendable, Hashable {
        /// One sequence has one more token.
        ///
        /// With beams no token is certain before the end, so none comes.
        case token(GeneratedToken)

        /// The last event: everything that `Generate` would have returned.
        case response(GenerateResponse)
    }

    /// What happened.
    public var event: Event?

    /// Creates the message; each parameter is the property of that name.
    public init(event: Event? = nil) {
        self.event = event
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension GenerateEvent: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__GenerateEvent>) {
        switchyard__v1__generate_event__init(c)
    }

    init(reading c: Switchyard__V1__GenerateEvent, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            event: try Self.event(of: c, fields)
        )
    }

    func write(_ c: inout Switchyard__V1__GenerateEvent, _ arena: ProtoArena) {
        switch self.event {
        case .token(let token):
            c.event_case = SWITCHYARD__V1__GENERATE_EVENT__EVENT_TOKEN
            c.token = arena.message(token)
        case .response(let response):
            c.event_case = SWITCHYARD__V1__GENERATE_EVENT__EVENT_RESPONSE
            c.response = arena.message(response)
        case nil:
            break
        }
    }

    /// The member of the oneof that is set.
    private static func event(of c: Switchyard__V1__GenerateEvent, _ fields: FieldReader) throws(ProtoError) -> Event? {
        switch c.event_case {
        case SWITCHYARD__V1__GENERATE_EVENT__EVENT_TOKEN: try fields.message(c.token).map { .token($0) }
        case SWITCHYARD__V1__GENERATE_EVENT__EVENT_RESPONSE: try fields.message(c.response).map { .response($0) }
        default: nil
        }
    }
}

/// One more token of one sequence.
public struct GeneratedToken: Sendable, Hashable {
    /// Which of the returned sequences, from 0.
    public var sequence: UInt32

    /// The token's id.
    public var tokenID: UInt32

    /// The text that the token adds; empty while a character is not complete.
    ///
    /// The texts of a sequence joined are its text.
    public var text: String

    /// How likely it was, if top_logprobs asked for it.
    public var logprob: TokenLogprob?

    /// Creates the message; each parameter is the property of that name.
    public init(sequence: UInt32 = 0, tokenID: UInt32 = 0, text: String = "", logprob: TokenLogprob? = nil) {
        self.sequence = sequence
        self.tokenID = tokenID
        self.text = text
        self.logprob = logprob
    }
}

extension GeneratedToken: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__GeneratedToken>) {
        switchyard__v1__generated_token__init(c)
    }

    init(reading c: Switchyard__V1__GeneratedToken, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            sequence: c.sequence,
            tokenID: c.token_id,
            text: try fields.string(c.text, "text"),
            logprob: try fields.message(c.logprob)
        )
    }

    func write(_ c: inout Switchyard__V1__GeneratedToken, _ arena: ProtoArena) {
        c.sequence = self.sequence
        c.token_id = self.tokenID
        c.text = arena.bytes(self.text)
        c.logprob = arena.message(self.logprob)
    }
}
