// SPDX-License-Identifier: Apache-2.0

/// The address of a Unix domain socket: a file of this machine, written `unix:/path` or `unix:///path`.
///
/// Where an address has a host and a port, ``host`` stands in the host's place, and the port is 0.
public struct UnixAddress: Sendable, Hashable, CustomStringConvertible {
    /// Text that names no socket: the message says what is allowed.
    public struct Problem: Error, Sendable, Hashable, CustomStringConvertible {
        /// The whole message.
        public let description: String
    }

    /// How every such address begins.
    public static let prefix = "unix:"

    /// The most bytes of a path: what the socket addresses of all systems have room for, without the zero at their end.
    public static let maxPathBytes = 103

    /// The absolute path of the socket's file.
    public let path: String

    /// Whether text is meant as the address of a Unix socket, well formed or not.
    ///
    /// - Parameter text: An address, or the host of one.
    /// - Returns: Whether it begins with `unix:`.
    public static func isMeant(by text: some StringProtocol) -> Bool { text.hasPrefix(Self.prefix) }

    /// Reads an address.
    ///
    /// - Parameter text: `unix:/path` or `unix:///path`.
    /// - Throws: ``Problem`` for a path that is not absolute, is too long, or holds a comma or a zero.
    public init(parsing text: some StringProtocol) throws(Problem) {
        guard Self.isMeant(by: text) else {
            throw Problem(description: "the address \"\(text)\" must be written unix:/path")
        }
        var path = text.dropFirst(Self.prefix.count)
        if path.hasPrefix("///") { path = path.dropFirst(2) }
        guard path.hasPrefix("/"), !path.hasPrefix("//"), !path.hasSuffix("/") else {
            throw Problem(
                description:
                    "the address \"\(text)\" must name an absolute path, such as unix:/run/switchyard/pool-0.sock"
            )
        }
        guard !path.utf8.contains(0), !path.contains(",") else {
            throw Problem(description: "the path of the address \"\(text)\" must not hold a comma or a zero byte")
        }
        guard path.utf8.count <= Self.maxPathBytes else {
            throw Problem(
                description: "the path of the address \"\(text)\" has \(path.utf8.count) bytes, more than the "
                    + "\(Self.maxPathBytes) that a socket's address has room for; choose a shorter one"
            )
        }
        self.path = String(path)
    }

    /// Reads the address that stands in a host's place; nil for a name or an address of a network.
    ///
    /// - Parameter host: The host of an address.
    public init?(host: String) {
        guard Self.isMeant(by: host) else { return nil }
        do { try self.init(parsing: host) } catch { return nil }
    }

    /// The address in a host's place.
    public var host: String { Self.prefix + self.path }

    /// The address as it is written, `unix:/path`.
    public var description: String { self.host }
}

/// Addresses as people write them.
public enum AddressText {
    /// `host:port`, an IPv6 address in brackets; `unix:/path` for a Unix socket, which has no port.
    ///
    /// - Parameters:
    ///   - host: A name or an address without brackets.
    ///   - port: The port.
    /// - Returns: The text.
    public static func of(host: String, port: Int) -> String {
        if UnixAddress.isMeant(by: host) { return host }
        return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}
