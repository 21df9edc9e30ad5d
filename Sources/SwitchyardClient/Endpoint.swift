// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import SwitchyardTypes

/// Where a gateway listens.
public struct Endpoint: Sendable, Hashable, CustomStringConvertible {
    /// A host name or an address, an IPv6 address without brackets; `unix:/path` for a Unix socket.
    public var host: String

    /// The port; 0 for a Unix socket.
    public var port: Int

    /// Where a gateway listens by default: port 7400 of this machine.
    public static let local = Endpoint(host: "127.0.0.1", port: 7_400)

    /// Creates an endpoint.
    ///
    /// - Parameters:
    ///   - host: A host name or an address.
    ///   - port: The port.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Reads an endpoint.
    ///
    /// - Parameter text: `host:port`, `[IPv6 address]:port` or `unix:/path`.
    /// - Throws: ``GatewayError`` with `INVALID_ARGUMENT` if the text is anything else.
    public init(parsing text: String) throws(GatewayError) {
        if UnixAddress.isMeant(by: text) {
            do throws(UnixAddress.Problem) {
                self.host = try UnixAddress(parsing: text).host
                self.port = 0
            } catch {
                throw GatewayError(.invalidArgument, error.description)
            }
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65_535).contains(port)
        else {
            throw Self.error(text, "has no port from 1 to 65535")
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            throw Self.error(text, "has more than one colon; write an IPv6 address in brackets")
        }
        guard !host.isEmpty else {
            throw Self.error(text, "has no host")
        }
        self.host = String(host)
        self.port = port
    }

    /// The endpoint as it is parsed.
    public var description: String { AddressText.of(host: self.host, port: self.port) }

    /// The error about a text.
    private static func error(_ text: String, _ fault: String) -> GatewayError {
        GatewayError(.invalidArgument, "endpoint \"\(text.prefix(256))\" \(fault); write host:port or unix:/path")
    }
}
