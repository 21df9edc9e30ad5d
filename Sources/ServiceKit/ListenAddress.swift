// SPDX-License-Identifier: Apache-2.0

internal import RPCTransport
internal import SwitchyardTypes

/// A host and a port, written `host:port` or `[v6]:port`, or a Unix socket, `unix:/path`.
public struct ListenAddress: Sendable, Hashable, CustomStringConvertible {
    /// Name or address, without brackets; `*` for every address of this machine; `UnixAddress.host` for a Unix socket.
    public var host: String
    /// Port, 0 to 65535; 0 lets the system choose, and is what a Unix socket has.
    public var port: Int

    /// Creates an address from its parts.
    ///
    /// - Parameters:
    ///   - host: Name or address, without brackets.
    ///   - port: Port.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Parses `host:port`, `[v6]:port`, `*:port` for every address of this machine, `:port` for every IPv4 address, or
    /// `unix:/path`.
    ///
    /// - Parameter text: The address as written.
    /// - Throws: ``Settings/Failure`` saying what is wrong with it.
    public init(parsing text: String) throws(Settings.Failure) {
        if UnixAddress.isMeant(by: text) {
            do throws(UnixAddress.Problem) {
                self.init(host: try UnixAddress(parsing: text).host, port: 0)
            } catch {
                throw Settings.Failure(error.description)
            }
            return
        }
        let host: Substring
        let port: Substring
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]"), text[end...].hasPrefix("]:") else {
                throw Settings.Failure("the address \"\(text)\" must be written [address]:port")
            }
            host = text[text.index(after: text.startIndex)..<end]
            guard !host.isEmpty else {
                throw Settings.Failure("the address \"\(text)\" lacks an address between the brackets")
            }
            port = text[text.index(end, offsetBy: 2)...]
        } else {
            guard let colon = text.lastIndex(of: ":"), !text[..<colon].contains(":") else {
                throw Settings.Failure(
                    "the address \"\(text)\" must be written host:port, or [address]:port for an IPv6 address"
                )
            }
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        guard let number = Int(port), (0...65_535).contains(number) else {
            throw Settings.Failure("the port \"\(port)\" of the address \"\(text)\" must be from 0 to 65535")
        }
        self.init(host: host.isEmpty ? "0.0.0.0" : String(host), port: number)
    }

    /// The host as a server binds it: for `*` the address that stands for all, which depends on the machine.
    public var boundHost: String { self.host == "*" ? PortReservation.everyAddress() : self.host }

    /// Whether it is a Unix socket.
    public var isUnix: Bool { UnixAddress.isMeant(by: self.host) }

    /// Whether two servers cannot listen on both addresses: they share a port, and a host or all hosts.
    ///
    /// - Parameter other: The other address.
    /// - Returns: Whether they certainly collide; names are not looked up.
    public func overlaps(_ other: ListenAddress) -> Bool {
        let all: Set<String> = ["*", "::", "0.0.0.0"]
        return self.port == other.port && self.port != 0
            && (self.host == other.host || all.contains(self.host) || all.contains(other.host))
    }

    /// The address as it is written, an IPv6 address in brackets.
    public var description: String { AddressText.of(host: self.host, port: self.port) }
}
