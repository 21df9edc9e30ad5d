// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOSSL

/// Why a connection could not be secured, in words that say what to do.
struct TLSFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// The prefix of every TLS reason.
    static let prefix = "TLS: "

    /// Whether it is worth logging: a peer that only connected and left is not.
    var isTelling: Bool
    /// The whole reason.
    var description: String

    init(_ description: String, isTelling: Bool = true) {
        self.description = description
        self.isTelling = isTelling
    }

    /// The reason for an error of the TLS library.
    ///
    /// - Parameters:
    ///   - error: The error.
    ///   - certificate: The peer's certificate, if it was seen.
    ///   - expectedName: What the peer's certificate should name; nil on a server.
    init(_ error: any Error, certificate: NIOSSLCertificate? = nil, expectedName: String? = nil) {
        let codes = Self.codes(in: error)
        if codes.contains("CERTIFICATE_VERIFY_FAILED") {
            self.init(Self.rejection(of: certificate, peer: expectedName == nil ? "client" : "server"))
        } else if expectedName == nil, codes.contains(where: { Self.plaintextCodes.contains($0) }) {
            self.init(
                "TLS: the peer speaks plaintext, but this port speaks TLS; let the client use TLS, with the authority of "
                    + "this server's certificate"
            )
        } else if let known = codes.lazy.compactMap({ Self.meanings[$0] }).first {
            self.init("TLS: \(known)")
        } else if Self.isEndOfFile(error) {
            self.init("TLS: the peer closed the connection during the handshake", isTelling: false)
        } else if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname {
            self = .wrongName(certificate.map { PeerIdentity($0) }, expected: expectedName ?? "this host")
        } else if let error = error as? NIOSSLError, error == .unableToValidateCertificate {
            self = .wrongName(certificate.map { PeerIdentity($0) }, expected: expectedName ?? "this host")
        } else if let error = error as? IOError {
            self.init("TLS: the connection failed during the handshake: \(error)", isTelling: false)
        } else {
            self.init("TLS: \(codes.isEmpty ? "\(error)" : codes.joined(separator: ", "))")
        }
    }

    /// The server's certificate is for someone else.
    static func wrongName(_ identity: PeerIdentity?, expected: String) -> TLSFailure {
        TLSFailure(
            "TLS: the server's certificate is not for \(expected) but for \(identity?.description ?? "nobody"); connect to a "
                + "name that it has, or set the server name"
        )
    }

    /// The reason for an error on a secured connection; nil for one that is not of TLS.
    static func reason(after error: any Error) -> String? {
        switch error {
        case NIOSSLError.uncleanShutdown: "the peer closed the connection"
        case is NIOSSLError, is BoringSSLError, is NIOSSLExtraError, is NIOSSLCloseTimedOutError:
            TLSFailure(error).description
        default: nil
        }
    }

    /// The TLS library's codes in an error, such as `CERTIFICATE_VERIFY_FAILED`.
    static func codes(in error: any Error) -> [String] {
        let stack: NIOBoringSSLErrorStack
        switch error {
        case NIOSSLError.handshakeFailed(let inner), NIOSSLError.shutdownFailed(let inner): return Self.codes(in: inner)
        case BoringSSLError.sslError(let errors): stack = errors
        case BoringSSLError.unknownError(let errors): stack = errors
        default: return []
        }
        // "Error: 268435581 error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED at file:298"
        return stack.compactMap { error in
            let text = error.description
            guard let start = text.firstRange(of: "OPENSSL_internal:")?.upperBound else { return nil }
            return String(text[start...].prefix { $0 != " " })
        }
    }

    /// Why a certificate did not pass, as far as it shows.
    private static func rejection(of certificate: NIOSSLCertificate?, peer: String) -> String {
        guard let certificate else {
            return "TLS: the \(peer)'s certificate is not signed by a trusted authority, or is not valid now"
        }
        let now = TLSFiles.now
        let identity = PeerIdentity(certificate)
        if certificate.notValidAfter < now {
            return
                "TLS: the \(peer)'s certificate (\(identity)) ended on \(TLSFiles.date(certificate.notValidAfter)); it "
                + "needs a new one"
        }
        if certificate.notValidBefore > now {
            return
                "TLS: the \(peer)'s certificate (\(identity)) begins on \(TLSFiles.date(certificate.notValidBefore)); "
                + "check the clocks"
        }
        return "TLS: the \(peer)'s certificate (\(identity)) is not signed by an authority that this side trusts; give "
            + "this side the authority that signed it"
    }

    private static func isEndOfFile(_ error: any Error) -> Bool {
        switch error {
        case NIOSSLError.handshakeFailed(.sslError(let stack)): stack.contains(.eofDuringHandshake)
        case NIOSSLError.uncleanShutdown: true
        default: false
        }
    }

    private static let noVersion = "the two sides have no TLS version in common; 1.2 or 1.3 is needed"
    private static let notTrusted = "the peer does not trust the authority that signed this side's certificate"
    private static let refused = "the peer refused this side's certificate"
    private static let plaintextCodes: Set<String> = ["WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"]
    private static let plaintext =
        "the peer answers in plaintext, not TLS; connect to a TLS port, or without TLS"

    /// What the library's codes mean; an alert is what the peer says about this side.
    ///
    /// Source: https://boringssl.googlesource.com/boringssl/+/refs/heads/main/include/openssl/ssl.h (alerts and reasons),
    /// RFC 8446, section 6.2.
    private static let meanings: [String: String] = [
        "TLSV1_ALERT_UNKNOWN_CA": notTrusted,
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that this side's certificate has expired or is not valid yet",
        "SSLV3_ALERT_CERTIFICATE_REVOKED": "the peer says that this side's certificate was revoked",
        "SSLV3_ALERT_BAD_CERTIFICATE": refused,
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN": refused,
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": refused + ": it is not valid for this use",
        "TLSV1_ALERT_ACCESS_DENIED": refused + ": access denied",
        "TLSV1_ALERT_DECRYPT_ERROR": refused + ": its signature does not match",
        "TLSV1_ALERT_CERTIFICATE_REQUIRED":
            "the server takes only clients with a certificate, and this side showed none",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate, and this server takes no others",
        "SSLV3_ALERT_HANDSHAKE_FAILURE":
            "the peer refused the handshake: it may require a certificate, or have no cipher in common",
        "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer does not speak HTTP/2 (ALPN h2)",
        "NO_APPLICATION_PROTOCOL": "the peer does not speak HTTP/2 (ALPN h2)",
        "WRONG_VERSION_NUMBER": plaintext,
        "HTTP_REQUEST": plaintext,
        "HTTPS_PROXY_REQUEST": plaintext,
        "UNSUPPORTED_PROTOCOL": noVersion,
        "TLSV1_ALERT_PROTOCOL_VERSION": noVersion,
        "NO_SHARED_CIPHER": "the two sides have no cipher in common",
    ]
}
