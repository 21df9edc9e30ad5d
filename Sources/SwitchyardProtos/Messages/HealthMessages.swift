// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// Asks for the health of a service.
public struct HealthCheckRequest: ProtoMessage {
    /// The service's full name; empty means the server as a whole.
    public var service: String

    /// Creates the message; each parameter is the property of that name.
    public init(service: String = "") {
        self.service = service
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension HealthCheckRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Health__V1__HealthCheckRequest>) {
        grpc__health__v1__health_check_request__init(c)
    }

    init(reading c: Grpc__Health__V1__HealthCheckRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(service: try fields.string(c.service, "service"))
    }

    func write(_ c: inout Grpc__Health__V1__HealthCheckRequest, _ arena: ProtoArena) {
        c.service = arena.bytes(self.service)
    }
}

/// The health of a service.
public struct HealthCheckResponse: ProtoMessage {
    /// Whether a service takes calls.
    ///
    /// An unknown number is read as `unknown`.
    public enum ServingStatus: UInt32, Sendable, Hashable, CaseIterable {
        /// Not known.
        case unknown = 0
        /// It takes calls.
        case serving = 1
        /// It takes no calls.
        case notServing = 2
        /// The server does not have it; sent by `Watch` only.
        case serviceUnknown = 3
    }

    /// Whether the service takes calls.
    public var status: ServingStatus

    /// Creates the message; each parameter is the property of that name.
    public init(status: ServingStatus = .unknown) {
        self.status = status
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension HealthCheckResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Health__V1__HealthCheckResponse>) {
        grpc__health__v1__health_check_response__init(c)
    }

    init(reading c: Grpc__Health__V1__HealthCheckResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(status: ServingStatus(rawValue: c.status.rawValue) ?? .unknown)
    }

    func write(_ c: inout Grpc__Health__V1__HealthCheckResponse, _ arena: ProtoArena) {
        c.status = Grpc__Health__V1__HealthCheckResponse__ServingStatus(self.status.rawValue)
    }
}

/// Asks for the health of every service.
public struct HealthListRequest: ProtoMessage {
    /// Creates the message.
    public init() {}

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension HealthListRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Health__V1__HealthListRequest>) {
        grpc__health__v1__health_list_request__init(c)
    }

    init(reading c: Grpc__Health__V1__HealthListRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init()
    }

    func write(_ c: inout Grpc__Health__V1__HealthListRequest, _ arena: ProtoArena) {}
}

/// The health of every service.
public struct HealthListResponse: ProtoMessage {
    /// By the service's full name; the empty name stands for the server as a whole.
    public var statuses: [String: HealthCheckResponse.ServingStatus]

    /// Creates the message; each parameter is the property of that name.
    public init(statuses: [String: HealthCheckResponse.ServingStatus] = [:]) {
        self.statuses = statuses
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension HealthListResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Health__V1__HealthListResponse>) {
        grpc__health__v1__health_list_response__init(c)
    }

    init(reading c: Grpc__Health__V1__HealthListResponse, _ fields: FieldReader) throws(ProtoError) {
        let entries = try fields.messages(c.n_statuses, c.statuses, as: StatusesEntry.self)
        // As in every map of protobuf, the last of several entries with one key counts.
        self.init(statuses: Dictionary(entries.map { ($0.key, $0.value) }) { _, last in last })
    }

    func write(_ c: inout Grpc__Health__V1__HealthListResponse, _ arena: ProtoArena) {
        let entries = self.statuses.sorted { $0.key < $1.key }.map { StatusesEntry(key: $0.key, value: $0.value) }
        (c.n_statuses, c.statuses) = arena.messages(entries)
    }
}

/// A map's entry, as it goes over the wire.
private struct StatusesEntry: CBacked {
    var key: String
    var value: HealthCheckResponse.ServingStatus

    static func prepare(_ c: UnsafeMutablePointer<Grpc__Health__V1__HealthListResponse__StatusesEntry>) {
        grpc__health__v1__health_list_response__statuses_entry__init(c)
    }
}

extension StatusesEntry {
    init(
        reading c: Grpc__Health__V1__HealthListResponse__StatusesEntry,
        _ fields: FieldReader
    ) throws(ProtoError) {
        let value = try fields.message(c.value, as: HealthCheckResponse.self)
        self.init(key: try fields.string(c.key, "key"), value: value?.status ?? .unknown)
    }

    func write(_ c: inout Grpc__Health__V1__HealthListResponse__StatusesEntry, _ arena: ProtoArena) {
        c.key = arena.bytes(self.key)
        c.value = arena.structure(HealthCheckResponse(status: self.value))
    }
}
