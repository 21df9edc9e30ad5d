// SPDX-License-Identifier: Apache-2.0

public import RPCTransport

/// Whether a connection to a gateway is encrypted.
public enum GatewaySecurity: Sendable {
    /// Not encrypted, and only to this machine; any other endpoint is refused.
    case plaintextOnLoopback
    /// Not encrypted, to any machine, token included: for trusted networks.
    case plaintext
    /// Encrypted, and the gateway must present a certificate for its name.
    case tls(ClientTLSOptions)

    /// Checks that plaintext leaves this machine only if it is allowed.
    ///
    /// - Parameter endpoint: Where the gateway listens.
    /// - Throws: ``GatewayError`` with `FAILED_PRECONDITION` for plaintext to another machine.
    func check(_ endpoint: Endpoint) throws(GatewayError) {
        guard case .plaintextOnLoopback = self, !LoopbackHost.contains(endpoint.host) else { return }
        throw GatewayError(
            .failedPrecondition,
            "the endpoint \(endpoint) is not on this machine, and the connection would be plaintext; set security to "
                + ".tls(...), or to .plaintext where the network is trusted"
        )
    }
}

/// A secret that identifies the caller to a gateway; it prints as stars.
public struct BearerToken: Sendable, Hashable {
    /// The secret itself.
    let secret: String

    /// Creates a token.
    ///
    /// - Parameter secret: 1 to 4096 letters, digits and `-._~+/=` (RFC 6750, section 2.1).
    /// - Throws: ``GatewayError`` with `INVALID_ARGUMENT` for any other text; the error does not show the text.
    public init(_ secret: String) throws(GatewayError) {
        let isValid =
            (1...4_096).contains(secret.utf8.count)
            && secret.unicodeScalars.allSatisfy { scalar in
                scalar.isASCII && (scalar.properties.isAlphabetic || scalar.properties.numericType != nil)
                    || "-._~+/=".unicodeScalars.contains(scalar)
            }
        guard isValid else {
            throw GatewayError(.invalidArgument, "the token must be 1 to 4096 letters, digits and -._~+/=")
        }
        self.secret = secret
    }
}

extension BearerToken: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// Stars, whatever the token is.
    public var description: String { "***" }

    /// Stars, whatever the token is.
    public var debugDescription: String { self.description }

    /// Nothing to look into.
    public var customMirror: Mirror { Mirror(self, children: []) }
}
