// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// An input to encode.
public struct EncodeRequest: ProtoMessage {
    /// What goes into the encoder.
    public var input: ModelInput?

    /// How hidden states become the answer.
    public var pooling: Pooling

    /// How many tokens may be dropped.
    public var dropPolicy: DropPolicy?

    /// Creates the message; each parameter is the property of that name.
    public init(input: ModelInput? = nil, pooling: Pooling = .perToken, dropPolicy: DropPolicy? = nil) {
        self.input = input
        self.pooling = pooling
        self.dropPolicy = dropPolicy
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension EncodeRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__EncodeRequest>) {
        switchyard__v1__encode_request__init(c)
    }

    init(reading c: Switchyard__V1__EncodeRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            input: try Self.input(of: c, fields),
            pooling: try fields.choice(c.pooling.rawValue, "pooling"),
            dropPolicy: try fields.message(c.drop_policy)
        )
    }

    func write(_ c: inout Switchyard__V1__EncodeRequest, _ arena: ProtoArena) {
        switch self.input {
        case .text(let text):
            c.input_case = SWITCHYARD__V1__ENCODE_REQUEST__INPUT_TEXT
            c.text = arena.bytes(text)
        case .tokenIDs(let ids):
            c.input_case = SWITCHYARD__V1__ENCODE_REQUEST__INPUT_INPUT_IDS
            c.input_ids = arena.message(TokenIDs(ids: ids))
        case nil:
            break
        }
        c.pooling = Switchyard__V1__Pooling(self.pooling.rawValue)
        c.drop_policy = arena.message(self.dropPolicy)
    }

    /// The member of the oneof that is set.
    private static func input(of c: Switchyard__V1__EncodeRequest, _ fields: FieldReader) throws(ProtoError)
        -> ModelInput?
    {
        switch c.input_case {
        case SWITCHYARD__V1__ENCODE_REQUEST__INPUT_TEXT: try fields.text(c.text, "text")
        case SWITCHYARD__V1__ENCODE_REQUEST__INPUT_INPUT_IDS: try fields.tokenIDs(c.input_ids)
        default: nil
        }
    }
}

/// The encoder's hidden states.
public struct EncodeResponse: ProtoMessage {
    /// FLOAT32; [tokens, d_model], or [1, d_model] for a mean.
    public var hiddenStates: Tensor?

    /// The token ids that were encoded.
    public var tokenIDs: [UInt32]

    /// What the call cost.
    public var usage: Usage?

    /// Creates the message; each parameter is the property of that name.
    public init(hiddenStates: Tensor? = nil, tokenIDs: [UInt32] = [], usage: Usage? = nil) {
        self.hiddenStates = hiddenStates
        self.tokenIDs = tokenIDs
        self.usage = usage
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension EncodeResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__EncodeResponse>) {
        switchyard__v1__encode_response__init(c)
    }

    init(reading c: Switchyard__V1__EncodeResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            hiddenStates: try fields.message(c.hidden_states),
            tokenIDs: fields.array(c.n_token_ids, c.token_ids),
            usage: try fields.message(c.usage)
        )
    }

    func write(_ c: inout Switchyard__V1__EncodeResponse, _ arena: ProtoArena) {
        c.hidden_states = arena.message(self.hiddenStates)
        (c.n_token_ids, c.token_ids) = arena.array(self.tokenIDs)
        c.usage = arena.message(self.usage)
    }
}
