// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Tokens that went on without an expert's output, by place and reason.
public struct DroppedTokens: Sendable, Hashable {
    /// The half of the model.
    public var stack: Stack

    /// The index of the block that holds the sparse layer.
    public var layer: UInt32

    /// Why they were dropped.
    public var reason: DropReason

    /// How many: each token counts once per sparse layer and step.
    public var tokens: UInt64

    /// Creates the message; each parameter is the property of that name.
    public init(stack: Stack = .unspecified, layer: UInt32 = 0, reason: DropReason = .unspecified, tokens: UInt64 = 0) {
        self.stack = stack
        self.layer = layer
        self.reason = reason
        self.tokens = tokens
    }
}

extension DroppedTokens: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__DroppedTokens>) {
        switchyard__v1__dropped_tokens__init(c)
    }

    init(reading c: Switchyard__V1__DroppedTokens, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            stack: try fields.choice(c.stack.rawValue, "stack"),
            layer: c.layer,
            reason: DropReason(rawValue: c.reason.rawValue) ?? .unspecified,
            tokens: c.tokens
        )
    }

    func write(_ c: inout Switchyard__V1__DroppedTokens, _ arena: ProtoArena) {
        c.stack = Switchyard__V1__Stack(self.stack.rawValue)
        c.layer = self.layer
        c.reason = Switchyard__V1__DropReason(self.reason.rawValue)
        c.tokens = self.tokens
    }
}

/// What a call cost.
public struct Usage: Sendable, Hashable {
    /// Tokens given to the encoder, the end-of-sequence token included.
    public var inputTokens: UInt32 = 0

    /// Tokens that came out, over all returned sequences; for a score, the target's tokens.
    public var outputTokens: UInt32 = 0

    /// Tokens without an expert's output, by stack, layer and reason; empty if there were none.
    public var dropped: [DroppedTokens] = []

    /// Token times sparse layer: the denominator of a dropped fraction.
    public var routedTokens: UInt64 = 0

    /// Time between admission and the first step.
    public var queueMicroseconds: UInt64 = 0

    /// Time spent in the encoder.
    public var encodeMicroseconds: UInt64 = 0

    /// Time spent in the decoder, over all steps.
    public var decodeMicroseconds: UInt64 = 0

    /// Creates a message in which nothing is given.
    public init() {}
}

extension Usage: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__Usage>) {
        switchyard__v1__usage__init(c)
    }

    init(reading c: Switchyard__V1__Usage, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.inputTokens = c.input_tokens
        self.outputTokens = c.output_tokens
        self.dropped = try fields.messages(c.n_dropped, c.dropped)
        self.routedTokens = c.routed_tokens
        self.queueMicroseconds = c.queue_microseconds
        self.encodeMicroseconds = c.encode_microseconds
        self.decodeMicroseconds = c.decode_microseconds
    }

    func write(_ c: inout Switchyard__V1__Usage, _ arena: ProtoArena) {
        c.input_tokens = self.inputTokens
        c.output_tokens = self.outputTokens
        (c.n_dropped, c.dropped) = arena.messages(self.dropped)
        c.routed_tokens = self.routedTokens
        c.queue_microseconds = self.queueMicroseconds
        c.encode_microseconds = self.encodeMicroseconds
        c.decode_microseconds = self.decodeMicroseconds
    }
}

/// A token and how likely it was.
public struct TokenLogprob: Sendable, Hashable {
    /// The token's id.
    public var tokenID: UInt32

    /// The natural logarithm of its probability.
    public var logprob: Float

    /// The most likely tokens at this place, best first, if they were asked for.
    public var top: [TokenCandidate]

    /// Creates the message; each parameter is the property of that name.
    public init(tokenID: UInt32 = 0, logprob: Float = 0, top: [TokenCandidate] = []) {
        self.tokenID = tokenID
        self.logprob = logprob
        self.top = top
    }
}

extension TokenLogprob: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__TokenLogprob>) {
        switchyard__v1__token_logprob__init(c)
    }

    init(reading c: Switchyard__V1__TokenLogprob, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            tokenID: c.token_id,
            logprob: c.logprob,
            top: try fields.messages(c.n_top, c.top)
        )
    }

    func write(_ c: inout Switchyard__V1__TokenLogprob, _ arena: ProtoArena) {
        c.token_id = self.tokenID
        c.logprob = self.logprob
        (c.n_top, c.top) = arena.messages(self.top)
    }
}

/// One of the most likely tokens at a place.
public struct TokenCandidate: Sendable, Hashable {
    /// The token's id.
    public var tokenID: UInt32

    /// The natural logarithm of its probability.
    public var logprob: Float

    /// Creates the message; each parameter is the property of that name.
    public init(tokenID: UInt32 = 0, logprob: Float = 0) {
        self.tokenID = tokenID
        self.logprob = logprob
    }
}

extension TokenCandidate: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__TokenCandidate>) {
        switchyard__v1__token_candidate__init(c)
    }

    init(reading c: Switchyard__V1__TokenCandidate, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            tokenID: c.token_id,
            logprob: c.logprob
        )
    }

    func write(_ c: inout Switchyard__V1__TokenCandidate, _ arena: ProtoArena) {
        c.token_id = self.tokenID
        c.logprob = self.logprob
    }
}
