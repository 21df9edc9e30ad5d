// SPDX-License-Identifier: Apache-2.0

/// A host and a port, written `host:port` or `[v6]:port`.
public struct ListenAddress: Sendable, Hashable, CustomStringConvertible {
    /// Name or address, without brackets.
    public var host: String
    /// Port, 0 to 65535; 0 lets the system choose.
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

    /// Parses `host:port`, `[v6]:port` or `:port`, which means every address of this machine.
    ///
    /// - Parameter text: The address as written.
    /// - Throws: ``Settings/Failure`` saying what is wrong with it.
    public init(parsing text: String) throws(Settings.Failure) {
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

    /// The address as it is written, an IPv6 address in brackets.
    public var description: String {
        self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
    }
}
