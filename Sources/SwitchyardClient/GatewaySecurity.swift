// SPDX-License-Identifier: Apache-2.0

public import RPCTransport

/// Whether a connection to a gateway is encrypted.
public enum GatewaySecurity: Sendable {
    /// It is not, and is made to this machine alone; an endpoint elsewhere is refused.
    case plaintextOnLoopback
    /// It is not, wherever it goes, the token included: for networks that are trusted.
    case plaintext
    /// It is, and the gateway must show a certificate for its name.
    case tls(ClientTLSOptions)

    /// Checks that nothing leaves this machine in plaintext without having been asked for.
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

/// A secret that shows a gateway who calls; it prints as stars.
public struct BearerToken: Sendable, Hashable {
    /// The secret itself.
    let secret: String

    /// Takes a token.
    ///
    /// - Parameter secret: 1 to 4096 letters, digits and `-._~+/=` (RFC 6750, section 2.1).
    /// - Throws: ``GatewayError`` with `INVALID_ARGUMENT` for any other text; it does not show the text.
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
