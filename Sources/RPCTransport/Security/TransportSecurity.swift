// SPDX-License-Identifier: Apache-2.0

/// Whether a server's connections are encrypted.
public enum ServerSecurity: Sendable {
    /// They are not: for loopback and trusted networks.
    case plaintext
    /// They are, with the server's certificate, and with the client's where that is asked for.
    case tls(ServerTLS)

    /// Whether connections are not encrypted.
    var isPlaintext: Bool { if case .plaintext = self { true } else { false } }
}

/// Whether a channel's connections are encrypted.
public enum ClientSecurity: Sendable {
    /// They are not: for loopback and trusted networks.
    case plaintext
    /// They are, and the server must show a certificate for its name.
    case tls(ClientTLS)
}

/// Files or options of TLS that cannot be used.
public struct TLSError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Which file or option it is, what is wrong with it, and what to do about it.
    public var description: String

    /// Creates an error.
    ///
    /// - Parameter description: The whole message.
    public init(_ description: String) {
        self.description = description
    }
}
