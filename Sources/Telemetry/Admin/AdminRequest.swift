// SPDX-License-Identifier: Apache-2.0

/// A request to the admin port.
struct AdminRequest: Sendable, Hashable {
    /// The target of a request.
    enum Route: Sendable, Hashable {
        case metrics
        case live
        case ready
        /// There is nothing at that path.
        case unknownPath
        /// The path is there, but not for this method.
        case wrongMethod
        /// The request is too large.
        case tooLarge
        /// The bytes are not a request.
        case malformed
    }

    let route: Route
    /// Whether the answer must have no body.
    let isHead: Bool
    /// Whether the client wants to keep the connection.
    let keepsAlive: Bool

    /// Reads a request's first line.
    ///
    /// - Parameters:
    ///   - method: The method, such as `GET`.
    ///   - target: The target: a path, or a whole URL (RFC 9112, section 3.2.2), with or without a query.
    ///   - keepsAlive: Whether the client wants to keep this connection.
    init(method: String, target: String, keepsAlive: Bool) {
        let path = Self.path(of: target)
        let route: Route? =
            switch path {
            case "/metrics": .metrics
            case "/livez": .live
            case "/readyz": .ready
            default: nil
            }
        self.isHead = method == "HEAD"
        self.keepsAlive = keepsAlive
        if let route {
            self.route = self.isHead || method == "GET" ? route : .wrongMethod
        } else {
            self.route = .unknownPath
        }
    }

    /// Whether the request was refused before it was read to its end.
    var isRefused: Bool { self.route == .tooLarge || self.route == .malformed }

    /// A request that is refused before it is read.
    init(refused route: Route) {
        self.route = route
        self.isHead = false
        self.keepsAlive = false
    }

    private static func path(of target: String) -> Substring {
        var rest = Substring(target)
        for scheme in ["http://", "https://"] where rest.hasPrefix(scheme) {
            rest = rest.dropFirst(scheme.count)
            rest = rest.firstIndex(of: "/").map { rest[$0...] } ?? "/"
            break
        }
        return rest.prefix { $0 != "?" && $0 != "#" }
    }
}

/// An answer of the admin port.
struct AdminResponse: Sendable, Hashable {
    var status: Int
    var contentType = "text/plain; charset=utf-8"
    var body: [UInt8]
    /// Fields besides the type and length of the body.
    var fields: [String: String] = [:]

    init(status: Int, contentType: String = "text/plain; charset=utf-8", body: [UInt8]) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    init(status: Int, _ text: String) {
        self.init(status: status, body: Array((text + "\n").utf8))
    }
}

/// Whether a service takes calls.
public struct Readiness: Sendable, Hashable {
    /// Whether it takes calls.
    public var isReady: Bool
    /// Why it does not, or what people should know anyway; one line each.
    public var notes: [String]

    /// Creates an answer.
    ///
    /// - Parameters:
    ///   - isReady: Whether the service takes calls.
    ///   - notes: Why it does not, or what people should know anyway.
    public init(isReady: Bool, notes: [String] = []) {
        self.isReady = isReady
        self.notes = notes
    }
}
