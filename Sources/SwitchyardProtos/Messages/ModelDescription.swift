// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Asks for a ModelDescription.
public struct DescribeModelRequest: ProtoMessage {
    /// Creates a message in which nothing is given.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension DescribeModelRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__DescribeModelRequest>) {
        switchyard__v1__describe_model_request__init(c)
    }

    init(reading c: Switchyard__V1__DescribeModelRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init()
    }

    func write(_ c: inout Switchyard__V1__DescribeModelRequest, _ arena: ProtoArena) {}
}

/// Which model is served and with which limits.
public struct ModelDescription: ProtoMessage {
    /// The name that the gateway was given, or the directory's.
    public var name: String = ""

    /// The fingerprint of the checkpoint.
    public var fingerprint: UInt64 = 0

    /// The number of token ids.
    public var vocabularySize: UInt32 = 0

    /// The width of a hidden state (d_model).
    public var modelWidth: UInt32 = 0

    /// The width of a feed-forward's inner layer (d_ff).
    public var feedForwardWidth: UInt32 = 0

    /// The width of one attention head (d_kv).
    public var keyWidth: UInt32 = 0

    /// The number of attention heads.
    public var numHeads: UInt32 = 0

    /// The number of the encoder's blocks.
    public var encoderBlocks: UInt32 = 0

    /// The number of the decoder's blocks.
    public var decoderBlocks: UInt32 = 0

    /// The number of experts in each sparse layer.
    public var expertsPerLayer: UInt32 = 0

    /// The most tokens of one sequence that an expert takes in one sparse layer and step.
    public var expertCapacity: UInt32 = 0

    /// The sparse layers with the experts that some verified host holds.
    public var sparseLayers: [LayerExperts] = []

    /// The number of parameters, all experts included.
    public var parameters: UInt64 = 0

    /// How the gateway's weights are stored.
    public var weightDType: DType = .unspecified

    /// The longest input, in tokens.
    public var maxInputTokens: UInt32 = 0

    /// The largest max_new_tokens.
    public var maxNewTokens: UInt32 = 0

    /// The largest num_beams and num_return_sequences.
    public var maxSequences: UInt32 = 0

    /// The id that the decoder starts with.
    public var decoderStartTokenID: UInt32 = 0

    /// The id that ends a sequence.
    public var endTokenID: UInt32 = 0

    /// The id that fills unused places.
    public var padTokenID: UInt32 = 0

    /// The version of the gateway's software.
    public var version: String = ""

    /// Creates a message in which nothing is given.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ModelDescription: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ModelDescription>) {
        switchyard__v1__model_description__init(c)
    }

    init(reading c: Switchyard__V1__ModelDescription, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.name = try fields.string(c.name, "name")
        self.fingerprint = c.fingerprint
        self.vocabularySize = c.vocabulary_size
        self.modelWidth = c.d_model
        self.feedForwardWidth = c.d_ff
        self.keyWidth = c.d_kv
        self.numHeads = c.num_heads
        self.encoderBlocks = c.encoder_blocks
        self.decoderBlocks = c.decoder_blocks
        self.expertsPerLayer = c.experts_per_layer
        self.expertCapacity = c.expert_capacity
        self.sparseLayers = try fields.messages(c.n_sparse_layers, c.sparse_layers)
        self.parameters = c.parameters
        self.weightDType = DType(rawValue: c.weight_dtype.rawValue) ?? .unspecified
        self.maxInputTokens = c.max_input_tokens
        self.maxNewTokens = c.max_new_tokens
        self.maxSequences = c.max_sequences
        self.decoderStartTokenID = c.decoder_start_token_id
        self.endTokenID = c.end_token_id
        self.padTokenID = c.pad_token_id
        self.version = try fields.string(c.version, "version")
    }

    func write(_ c: inout Switchyard__V1__ModelDescription, _ arena: ProtoArena) {
        c.name = arena.bytes(self.name)
        c.fingerprint = self.fingerprint
        c.vocabulary_size = self.vocabularySize
        c.d_model = self.modelWidth
        c.d_ff = self.feedForwardWidth
        c.d_kv = self.keyWidth
        c.num_heads = self.numHeads
        c.encoder_blocks = self.encoderBlocks
        c.decoder_blocks = self.decoderBlocks
        c.experts_per_layer = self.expertsPerLayer
        c.expert_capacity = self.expertCapacity
        (c.n_sparse_layers, c.sparse_layers) = arena.messages(self.sparseLayers)
        c.parameters = self.parameters
        c.weight_dtype = Switchyard__V1__DType(self.weightDType.rawValue)
        c.max_input_tokens = self.maxInputTokens
        c.max_new_tokens = self.maxNewTokens
        c.max_sequences = self.maxSequences
        c.decoder_start_token_id = self.decoderStartTokenID
        c.end_token_id = self.endTokenID
        c.pad_token_id = self.padTokenID
        c.version = arena.bytes(self.version)
    }
}
