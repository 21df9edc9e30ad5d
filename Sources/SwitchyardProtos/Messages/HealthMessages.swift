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
