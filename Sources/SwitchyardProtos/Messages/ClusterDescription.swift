// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Asks for a ClusterDescription.
public struct DescribeClusterRequest: ProtoMessage {
    /// Creates a message in which nothing is given.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension DescribeClusterRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__DescribeClusterRequest>) {
        switchyard__v1__describe_cluster_request__init(c)
    }

    init(reading c: Switchyard__V1__DescribeClusterRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init()
    }

    func write(_ c: inout Switchyard__V1__DescribeClusterRequest, _ arena: ProtoArena) {}
}

/// How the gateway sees its cluster.
public struct ClusterDescription: ProtoMessage {
    /// The expert pools, by name.
    public var pools: [PoolDescription] = []

    /// What the gateway itself is doing.
    public var gateway: GatewayLoad?

    /// The fingerprint of the checkpoint that is served.
    public var modelFingerprint: UInt64 = 0

    /// Whether every expert is held by a host that is ready.
    public var complete: Bool = false

    /// Tokens without an expert's output since the start, by stack, layer and reason.
    public var dropped: [DroppedTokens] = []

    /// Token times sparse layer since the start.
    public var routedTokens: UInt64 = 0

    /// Where the tokens went since the start, one entry per sparse layer, the encoder's first.
    public var expertLoad: [LayerLoad] = []

    /// How token rows are sent to the expert hosts and come back.
    public var rowDType: DType = .unspecified

    /// Creates a message in which nothing is given.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ClusterDescription: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ClusterDescription>) {
        switchyard__v1__cluster_description__init(c)
    }

    init(reading c: Switchyard__V1__ClusterDescription, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.pools = try fields.messages(c.n_pools, c.pools)
        self.gateway = try fields.message(c.gateway)
        self.modelFingerprint = c.model_fingerprint
        self.complete = c.complete != 0
        self.dropped = try fields.messages(c.n_dropped, c.dropped)
        self.routedTokens = c.routed_tokens
        self.expertLoad = try fields.messages(c.n_expert_load, c.expert_load)
        self.rowDType = DType(rawValue: c.row_dtype.rawValue) ?? .unspecified
    }

    func write(_ c: inout Switchyard__V1__ClusterDescription, _ arena: ProtoArena) {
        (c.n_pools, c.pools) = arena.messages(self.pools)
        c.gateway = arena.message(self.gateway)
        c.model_fingerprint = self.modelFingerprint
        c.complete = self.complete ? 1 : 0
        (c.n_dropped, c.dropped) = arena.messages(self.dropped)
        c.routed_tokens = self.routedTokens
        (c.n_expert_load, c.expert_load) = arena.messages(self.expertLoad)
        c.row_dtype = Switchyard__V1__DType(self.rowDType.rawValue)
    }
}

/// How many tokens each expert of one sparse layer took.
public struct LayerLoad: Sendable, Hashable {
    /// The half of the model.
    public var stack: Stack

    /// The index of the block that holds the sparse layer.
    public var layer: UInt32

    /// Token rows that were dispatched, by expert index.
    public var rows: [UInt64]

    /// Moving average of the rows dispatched in a second, by expert index.
    public var rowsPerSecond: [Float]

    /// Creates the message; each parameter is the property of that name.
    public init(
        stack: Stack = .unspecified,
        layer: UInt32 = 0,
        rows: [UInt64] = [],
        rowsPerSecond: [Float] = []
    ) {
        self.stack = stack
        self.layer = layer
        self.rows = rows
        self.rowsPerSecond = rowsPerSecond
    }
}

extension LayerLoad: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__LayerLoad>) {
        switchyard__v1__layer_load__init(c)
    }

    init(reading c: Switchyard__V1__LayerLoad, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            stack: try fields.choice(c.stack.rawValue, "stack"),
            layer: c.layer,
            rows: fields.array(c.n_rows, c.rows),
            rowsPerSecond: fields.array(c.n_rows_per_second, c.rows_per_second)
        )
    }

    func write(_ c: inout Switchyard__V1__LayerLoad, _ arena: ProtoArena) {
        c.stack = Switchyard__V1__Stack(self.stack.rawValue)
        c.layer = self.layer
        (c.n_rows, c.rows) = arena.array(self.rows)
        (c.n_rows_per_second, c.rows_per_second) = arena.array(self.rowsPerSecond)
    }
}

/// What the gateway is doing.
public struct GatewayLoad: Sendable, Hashable {
    /// Sequences that wait for a batch slot.
    public var queued: UInt32 = 0

    /// The most sequences that may wait.
    public var queueLimit: UInt32 = 0

    /// Sequences that are encoded or decoded.
    public var running: UInt32 = 0

    /// Batch slots in use.
    public var usedSlots: UInt32 = 0

    /// Batch slots in all.
    public var batchSlots: UInt32 = 0

    /// Whether the gateway finishes what it has and takes no new work.
    public var draining: Bool = false

    /// Time since the gateway began to serve.
    public var uptimeSeconds: UInt64 = 0

    /// Decoded tokens since the start.
    public var decodedTokens: UInt64 = 0

    /// Steps since the start.
    public var steps: UInt64 = 0

    /// Creates a message in which nothing is given.
    public init() {}
}

extension GatewayLoad: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__GatewayLoad>) {
        switchyard__v1__gateway_load__init(c)
    }

    init(reading c: Switchyard__V1__GatewayLoad, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.queued = c.queued
        self.queueLimit = c.queue_limit
        self.running = c.running
        self.usedSlots = c.used_slots
        self.batchSlots = c.batch_slots
        self.draining = c.draining != 0
        self.uptimeSeconds = c.uptime_seconds
        self.decodedTokens = c.decoded_tokens
        self.steps = c.steps
    }

    func write(_ c: inout Switchyard__V1__GatewayLoad, _ arena: ProtoArena) {
        c.queued = self.queued
        c.queue_limit = self.queueLimit
        c.running = self.running
        c.used_slots = self.usedSlots
        c.batch_slots = self.batchSlots
        c.draining = self.draining ? 1 : 0
        c.uptime_seconds = self.uptimeSeconds
        c.decoded_tokens = self.decodedTokens
        c.steps = self.steps
    }
}
