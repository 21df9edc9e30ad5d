// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// The hosts that hold one set of experts.
public struct PoolDescription: Sendable, Hashable {
    /// The pool's name.
    public var name: String

    /// The experts that the pool's hosts hold, by sparse layer.
    public var experts: [LayerExperts]

    /// The hosts.
    public var replicas: [ReplicaDescription]

    /// Experts of other pools that every ready host of this one holds too, by sparse layer.
    public var spare: [LayerExperts]

    /// Those of them that are sent here too because they are hot, by sparse layer.
    public var extra: [LayerExperts]

    /// Calls since the start: one for each layer.
    public var calls: UInt64 = 0

    /// Calls that were sent to a second host while the first one was silent.
    public var hedges: UInt64 = 0

    /// Of these, answered by the second one first.
    public var hedgesWon: UInt64 = 0

    /// Attempts after a failed one.
    public var retries: UInt64 = 0

    /// Token rows that were given up.
    public var droppedRows: UInt64 = 0

    /// Creates the message; each parameter is the property of that name, and the counts are zero.
    public init(
        name: String = "",
        experts: [LayerExperts] = [],
        replicas: [ReplicaDescription] = [],
        spare: [LayerExperts] = [],
        extra: [LayerExperts] = []
    ) {
        self.name = name
        self.experts = experts
        self.replicas = replicas
        self.spare = spare
        self.extra = extra
    }
}

extension PoolDescription: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__PoolDescription>) {
        switchyard__v1__pool_description__init(c)
    }

    init(reading c: Switchyard__V1__PoolDescription, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            name: try fields.string(c.name, "name"),
            experts: try fields.messages(c.n_experts, c.experts),
            replicas: try fields.messages(c.n_replicas, c.replicas),
            spare: try fields.messages(c.n_spare, c.spare),
            extra: try fields.messages(c.n_extra, c.extra)
        )
        self.calls = c.calls
        self.hedges = c.hedges
        self.hedgesWon = c.hedges_won
        self.retries = c.retries
        self.droppedRows = c.dropped_rows
    }

    func write(_ c: inout Switchyard__V1__PoolDescription, _ arena: ProtoArena) {
        c.name = arena.bytes(self.name)
        (c.n_experts, c.experts) = arena.messages(self.experts)
        (c.n_replicas, c.replicas) = arena.messages(self.replicas)
        (c.n_spare, c.spare) = arena.messages(self.spare)
        (c.n_extra, c.extra) = arena.messages(self.extra)
        c.calls = self.calls
        c.hedges = self.hedges
        c.hedges_won = self.hedgesWon
        c.retries = self.retries
        c.dropped_rows = self.droppedRows
    }
}

/// One expert host as the gateway sees it.
public struct ReplicaDescription: Sendable, Hashable {
    /// Where it is, host:port.
    public var address: String = ""

    /// What the gateway thinks of it.
    public var state: ReplicaState = .unspecified

    /// Why it is in a state other than READY, for people.
    public var detail: String = ""

    /// Calls that have no answer yet.
    public var outstandingCalls: UInt32 = 0

    /// Token rows that have no answer yet.
    public var outstandingRows: UInt64 = 0

    /// Calls since the start.
    public var calls: UInt64 = 0

    /// Token rows since the start.
    public var rows: UInt64 = 0

    /// Calls that failed since the start.
    public var failures: UInt64 = 0

    /// The median of the recent calls' times.
    public var latencyP50Microseconds: UInt64 = 0

    /// The 99th percentile of the recent calls' times.
    public var latencyP99Microseconds: UInt64 = 0

    /// What the host said about itself last.
    public var load: HostLoad?

    /// How often it was left alone since the start.
    public var ejections: UInt64 = 0

    /// The zone that the host says it stands in; empty if it does not say.
    public var zone: String = ""

    /// How the host says that it keeps its weights.
    public var weightDType: DType = .unspecified

    /// Creates a message in which nothing is given.
    public init() {}
}

extension ReplicaDescription: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__ReplicaDescription>) {
        switchyard__v1__replica_description__init(c)
    }

    init(reading c: Switchyard__V1__ReplicaDescription, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.address = try fields.string(c.address, "address")
        self.state = ReplicaState(rawValue: c.state.rawValue) ?? .unspecified
        self.detail = try fields.string(c.detail, "detail")
        self.outstandingCalls = c.outstanding_calls
        self.outstandingRows = c.outstanding_rows
        self.calls = c.calls
        self.rows = c.rows
        self.failures = c.failures
        self.latencyP50Microseconds = c.latency_p50_microseconds
        self.latencyP99Microseconds = c.latency_p99_microseconds
        self.load = try fields.message(c.load)
        self.ejections = c.ejections
        self.zone = try fields.string(c.zone, "zone")
        self.weightDType = DType(rawValue: c.weight_dtype.rawValue) ?? .unspecified
    }

    func write(_ c: inout Switchyard__V1__ReplicaDescription, _ arena: ProtoArena) {
        c.address = arena.bytes(self.address)
        c.state = Switchyard__V1__ReplicaState(self.state.rawValue)
        c.detail = arena.bytes(self.detail)
        c.outstanding_calls = self.outstandingCalls
        c.outstanding_rows = self.outstandingRows
        c.calls = self.calls
        c.rows = self.rows
        c.failures = self.failures
        c.latency_p50_microseconds = self.latencyP50Microseconds
        c.latency_p99_microseconds = self.latencyP99Microseconds
        c.load = arena.message(self.load)
        c.ejections = self.ejections
        c.zone = arena.bytes(self.zone)
        c.weight_dtype = Switchyard__V1__DType(self.weightDType.rawValue)
    }
}
