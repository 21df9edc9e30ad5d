// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Asks for a HostDescription.
public struct DescribeHostRequest: ProtoMessage {
    /// Creates a message in which nothing is given.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension DescribeHostRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__DescribeHostRequest>) {
        switchyard__v1__describe_host_request__init(c)
    }

    init(reading c: Switchyard__V1__DescribeHostRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init()
    }

    func write(_ c: inout Switchyard__V1__DescribeHostRequest, _ arena: ProtoArena) {}
}

/// What an expert host holds and accepts.
public struct HostDescription: ProtoMessage {
    /// The fingerprint of the checkpoint that the shard was cut from.
    public var modelFingerprint: UInt64 = 0

    /// The name of the shard, for example "pool-0"; of several, their names joined by commas.
    public var shard: String = ""

    /// The experts that the host holds, by sparse layer.
    public var held: [LayerExperts] = []

    /// The width of a token row, in elements.
    public var modelWidth: UInt32 = 0

    /// How the weights are kept, whatever the checkpoint has.
    public var weightDType: DType = .unspecified

    /// The types of token rows that the host accepts.
    public var acceptedDTypes: [DType] = []

    /// The most token rows in one call.
    public var maxRowsPerCall: UInt64 = 0

    /// The longest message, in bytes, that the host accepts.
    public var maxMessageBytes: UInt64 = 0

    /// How busy the host is; the times of a call are zero.
    public var load: HostLoad?

    /// The version of the software.
    public var version: String = ""

    /// The families of kernels that run here, for people.
    public var kernels: String = ""

    /// Time since the host began to serve.
    public var uptimeSeconds: UInt64 = 0

    /// Where the host runs, for gateways that prefer their own zone; empty if it was not told.
    public var zone: String = ""

    /// Memory that the experts' weights take, in bytes.
    public var weightBytes: UInt64 = 0

    /// Creates a message in which nothing is given.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension HostDescription: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Switchyard__V1__HostDescription>) {
        switchyard__v1__host_description__init(c)
    }

    init(reading c: Switchyard__V1__HostDescription, _ fields: FieldReader) throws(ProtoError) {
        self.init()
        self.modelFingerprint = c.model_fingerprint
        self.shard = try fields.string(c.shard, "shard")
        self.held = try fields.messages(c.n_held, c.held)
        self.modelWidth = c.d_model
        // A type that only newer hosts know says no more than none; what it means for the pool is the gateway's to judge.
        self.weightDType = DType(rawValue: c.weight_dtype.rawValue) ?? .unspecified
        for dtype in fields.array(c.n_accepted_dtypes, c.accepted_dtypes) {
            // A type that only newer hosts know is of no use here.
            DType(rawValue: dtype.rawValue).map { self.acceptedDTypes.append($0) }
        }
        self.maxRowsPerCall = c.max_rows_per_call
        self.maxMessageBytes = c.max_message_bytes
        self.load = try fields.message(c.load)
        self.version = try fields.string(c.version, "version")
        self.kernels = try fields.string(c.kernels, "kernels")
        self.uptimeSeconds = c.uptime_seconds
        self.zone = try fields.string(c.zone, "zone")
        self.weightBytes = c.weight_bytes
    }

    func write(_ c: inout Switchyard__V1__HostDescription, _ arena: ProtoArena) {
        c.model_fingerprint = self.modelFingerprint
        c.shard = arena.bytes(self.shard)
        (c.n_held, c.held) = arena.messages(self.held)
        c.d_model = self.modelWidth
        c.weight_dtype = Switchyard__V1__DType(self.weightDType.rawValue)
        (c.n_accepted_dtypes, c.accepted_dtypes) = arena.array(
            self.acceptedDTypes.map { Switchyard__V1__DType($0.rawValue) }
        )
        c.max_rows_per_call = self.maxRowsPerCall
        c.max_message_bytes = self.maxMessageBytes
        c.load = arena.message(self.load)
        c.version = arena.bytes(self.version)
        c.kernels = arena.bytes(self.kernels)
        c.uptime_seconds = self.uptimeSeconds
        c.zone = arena.bytes(self.zone)
        c.weight_bytes = self.weightBytes
    }
}
