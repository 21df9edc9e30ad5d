// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Numbers in rows and columns: row-major, little-endian, without padding.
public struct Tensor: ProtoMessage {
    /// How each element is stored.
    public var dtype: DType

    /// The length of each axis, the slowest first.
    public var shape: [UInt32]

    /// The elements; as many bytes as the shape and the type say.
    public var data: [UInt8]

    /// Creates the message; each parameter is the property of that name.
    public init(dtype: DType = .unspecified, shape: [UInt32] = [], data: [UInt8] = []) {
        self.dtype = dtype
        self.shape = shape
        self.data = data
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension Tensor: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__Tensor>) {
        switchyard__v1__tensor__init(c)
    }

    init(reading c: Switchyard__V1__Tensor, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            dtype: try fields.choice(c.dtype.rawValue, "dtype"),
            shape: fields.array(c.n_shape, c.shape),
            data: fields.bytes(c.data)
        )
    }

    func write(_ c: inout Switchyard__V1__Tensor, _ arena: ProtoArena) {
        c.dtype = Switchyard__V1__DType(self.dtype.rawValue)
        (c.n_shape, c.shape) = arena.array(self.shape)
        c.data = arena.bytes(self.data)
    }
}

/// Token ids of the model's vocabulary.
public struct TokenIDs: Sendable, Hashable {
    /// The ids in order, taken as they are: the end-of-sequence token is included where it is meant.
    public var ids: [UInt32]

    /// Creates the message; each parameter is the property of that name.
    public init(ids: [UInt32] = []) {
        self.ids = ids
    }
}

extension TokenIDs: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__TokenIds>) {
        switchyard__v1__token_ids__init(c)
    }

    init(reading c: Switchyard__V1__TokenIds, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            ids: fields.array(c.n_ids, c.ids)
        )
    }

    func write(_ c: inout Switchyard__V1__TokenIds, _ arena: ProtoArena) {
        (c.n_ids, c.ids) = arena.array(self.ids)
    }
}

/// A number of consecutive token rows that belong to one expert.
public struct ExpertRows: Sendable, Hashable {
    /// The expert's index within its layer.
    public var expert: UInt32

    /// How many rows belong to it.
    public var rows: UInt32

    /// Creates the message; each parameter is the property of that name.
    public init(expert: UInt32 = 0, rows: UInt32 = 0) {
        self.expert = expert
        self.rows = rows
    }
}

extension ExpertRows: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ExpertRows>) {
        switchyard__v1__expert_rows__init(c)
    }

    init(reading c: Switchyard__V1__ExpertRows, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            expert: c.expert,
            rows: c.rows
        )
    }

    func write(_ c: inout Switchyard__V1__ExpertRows, _ arena: ProtoArena) {
        c.expert = self.expert
        c.rows = self.rows
    }
}

/// The experts of one sparse layer that something holds.
public struct LayerExperts: Sendable, Hashable {
    /// The half of the model.
    public var stack: Stack

    /// The index of the block that holds the sparse layer.
    public var layer: UInt32

    /// The experts' indices, ascending.
    public var experts: [UInt32]

    /// Creates the message; each parameter is the property of that name.
    public init(stack: Stack = .unspecified, layer: UInt32 = 0, experts: [UInt32] = []) {
        self.stack = stack
        self.layer = layer
        self.experts = experts
    }
}

extension LayerExperts: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__LayerExperts>) {
        switchyard__v1__layer_experts__init(c)
    }

    init(reading c: Switchyard__V1__LayerExperts, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            stack: try fields.choice(c.stack.rawValue, "stack"),
            layer: c.layer,
            experts: fields.array(c.n_experts, c.experts)
        )
    }

    func write(_ c: inout Switchyard__V1__LayerExperts, _ arena: ProtoArena) {
        c.stack = Switchyard__V1__Stack(self.stack.rawValue)
        c.layer = self.layer
        (c.n_experts, c.experts) = arena.array(self.experts)
    }
}

/// How many tokens may be dropped before a call fails.
public struct DropPolicy: Sendable, Hashable {
    /// Whether any token lost to a host (any reason but CAPACITY) fails the call instead of degrading it.
    public var strict: Bool

    /// The largest fraction of routed tokens that hosts may lose, from 0 to 1; 0 means that there is no such limit.
    public var maxDroppedFraction: Float

    /// Creates the message; each parameter is the property of that name.
    public init(strict: Bool = false, maxDroppedFraction: Float = 0) {
        self.strict = strict
        self.maxDroppedFraction = maxDroppedFraction
    }
}

extension DropPolicy: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__DropPolicy>) {
        switchyard__v1__drop_policy__init(c)
    }

    init(reading c: Switchyard__V1__DropPolicy, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            strict: c.strict != 0,
            maxDroppedFraction: c.max_dropped_fraction
        )
    }

    func write(_ c: inout Switchyard__V1__DropPolicy, _ arena: ProtoArena) {
        c.strict = self.strict ? 1 : 0
        c.max_dropped_fraction = self.maxDroppedFraction
    }
}
