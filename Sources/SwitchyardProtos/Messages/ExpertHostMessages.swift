// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Token rows for experts of one sparse layer.
public struct ForwardRequest: ProtoMessage {
    /// The fingerprint of the checkpoint that the gateway serves.
    public var modelFingerprint: UInt64

    /// The half of the model.
    public var stack: Stack

    /// The index of the block that holds the sparse layer.
    public var layer: UInt32

    /// The expert of each run of rows, in the order of the rows of `tokens`, experts ascending.
    public var groups: [ExpertRows]

    /// The rows, [rows, d_model]; as many rows as the groups name.
    public var tokens: Tensor?

    /// Creates the message; each parameter is the property of that name.
    public init(
        modelFingerprint: UInt64 = 0,
        stack: Stack = .unspecified,
        layer: UInt32 = 0,
        groups: [ExpertRows] = [],
        tokens: Tensor? = nil
    ) {
        self.modelFingerprint = modelFingerprint
        self.stack = stack
        self.layer = layer
        self.groups = groups
        self.tokens = tokens
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ForwardRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ForwardRequest>) {
        switchyard__v1__forward_request__init(c)
    }

    init(reading c: Switchyard__V1__ForwardRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            modelFingerprint: c.model_fingerprint,
            stack: try fields.choice(c.stack.rawValue, "stack"),
            layer: c.layer,
            groups: try fields.messages(c.n_groups, c.groups),
            tokens: try fields.message(c.tokens)
        )
    }

    func write(_ c: inout Switchyard__V1__ForwardRequest, _ arena: ProtoArena) {
        c.model_fingerprint = self.modelFingerprint
        c.stack = Switchyard__V1__Stack(self.stack.rawValue)
        c.layer = self.layer
        (c.n_groups, c.groups) = arena.messages(self.groups)
        c.tokens = arena.message(self.tokens)
    }
}

/// The experts' outputs.
public struct ForwardResponse: ProtoMessage {
    /// [rows, d_model], in the order and the type of the request's rows; not yet scaled by the router's probability.
    public var outputs: Tensor?

    /// How busy the host is.
    public var load: HostLoad?

    /// Creates the message; each parameter is the property of that name.
    public init(outputs: Tensor? = nil, load: HostLoad? = nil) {
        self.outputs = outputs
        self.load = load
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ForwardResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ForwardResponse>) {
        switchyard__v1__forward_response__init(c)
    }

    init(reading c: Switchyard__V1__ForwardResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            outputs: try fields.message(c.outputs),
            load: try fields.message(c.load)
        )
    }

    func write(_ c: inout Switchyard__V1__ForwardResponse, _ arena: ProtoArena) {
        c.outputs = arena.message(self.outputs)
        c.load = arena.message(self.load)
    }
}

/// What an expert host says about its work, in every answer.
public struct HostLoad: Sendable, Hashable {
    /// Calls that wait or run.
    public var activeCalls: UInt32 = 0

    /// Token rows that wait for the compute threads.
    public var queuedRows: UInt64 = 0

    /// The most token rows that may wait before calls are refused.
    public var queueRowLimit: UInt64 = 0

    /// Time that this call's rows waited.
    public var queueMicroseconds: UInt64 = 0

    /// Time that this call's rows were computed.
    public var computeMicroseconds: UInt64 = 0

    /// Whether the host is leaving: it finishes what it has and what still arrives on open connections; send it nothing
    /// new.
    public var draining: Bool = false

    /// Passes over experts' weights since the host began; a pass computes one call, or several that waited together.
    public var passes: UInt64 = 0

    /// Calls that those passes computed.
    public var computedCalls: UInt64 = 0

    /// Token rows that those passes computed.
    public var computedRows: UInt64 = 0

    /// Experts that those calls named, each call by itself: how often weights would have been read call by call.
    public var namedExperts: UInt64 = 0

    /// Experts whose weights those passes read; an expert counts once a pass, however many calls named it.
    public var expertReads: UInt64 = 0

    /// Calls of the pass that computed this call, this one among them; 0 in a description.
    public var passCalls: UInt32 = 0

    /// Creates a message in which nothing is given.
    public init() {}
}

extension HostLoad: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__HostLoad>) {
        switchyard__v1__host_load__init(c)
    }

    init(reading c: Switchyard__V1__HostLoad, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.activeCalls = c.active_calls
        self.queuedRows = c.queued_rows
        self.queueRowLimit = c.queue_row_limit
        self.queueMicroseconds = c.queue_microseconds
        self.computeMicroseconds = c.compute_microseconds
        self.draining = c.draining != 0
        self.passes = c.passes
        self.computedCalls = c.computed_calls
        self.computedRows = c.computed_rows
        self.namedExperts = c.named_experts
        self.expertReads = c.expert_reads
        self.passCalls = c.pass_calls
    }

    func write(_ c: inout Switchyard__V1__HostLoad, _ arena: ProtoArena) {
        c.active_calls = self.activeCalls
        c.queued_rows = self.queuedRows
        c.queue_row_limit = self.queueRowLimit
        c.queue_microseconds = self.queueMicroseconds
        c.compute_microseconds = self.computeMicroseconds
        c.draining = self.draining ? 1 : 0
        c.passes = self.passes
        c.computed_calls = self.computedCalls
        c.computed_rows = self.computedRows
        c.named_experts = self.namedExperts
        c.expert_reads = self.expertReads
        c.pass_calls = self.passCalls
    }
}
