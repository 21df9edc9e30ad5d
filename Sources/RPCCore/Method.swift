// SPDX-License-Identifier: Apache-2.0

/// The name of a method: its service's full name and its own.
public struct Method: Sendable, Hashable, CustomStringConvertible {
    /// The full name of the service, for example `switchyard.v1.Gateway`.
    public let service: String

    /// The method's own name, for example `Generate`.
    public let name: String

    /// The value of `:path`, for example `/switchyard.v1.Gateway/Generate`.
    public let path: String

    /// Creates the name of a method.
    ///
    /// - Parameters:
    ///   - service: The full name of the service.
    ///   - name: The method's own name.
    public init(service: String, name: String) {
        self.service = service
        self.name = name
        self.path = "/\(service)/\(name)"
    }

    /// Creates the name of a method from the value of `:path`.
    ///
    /// The last slash divides the service from the method, since a service's name may hold slashes. A path that lacks
    /// one of the three parts gives nil.
    ///
    /// - Parameter path: A path with a leading slash, a service and a method.
    public init?(path: String) {
        let bytes = path.utf8
        guard
            bytes.first == UInt8(ascii: "/"),
            let slash = bytes.lastIndex(of: UInt8(ascii: "/")),
            slash != bytes.startIndex
        else {
            return nil
        }
        let service = path[bytes.index(after: bytes.startIndex)..<slash]
        let name = path[bytes.index(after: slash)...]
        guard !service.isEmpty, !name.isEmpty else {
            return nil
        }
        self.service = String(service)
        self.name = String(name)
        self.path = path
    }

    /// The path without its leading slash.
    public var description: String { "\(self.service)/\(self.name)" }
}

/// How many messages each side of a call sends.
public enum CallShape: Sendable, Hashable, CaseIterable {
    /// One request, one response.
    case unary
    /// Any number of requests, one response.
    case clientStreaming
    /// One request, any number of responses.
    case serverStreaming
    /// Any number of requests, any number of responses.
    case bidirectional

    /// Whether the client sends exactly one message.
    public var hasSingleRequest: Bool { self == .unary || self == .serverStreaming }

    /// Whether the server sends exactly one message with an `OK`.
    public var hasSingleResponse: Bool { self == .unary || self == .clientStreaming }
}
