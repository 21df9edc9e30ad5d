// SPDX-License-Identifier: Apache-2.0

/// Recognizes what speaks another protocol than this side, which otherwise looks like a peer that breaks the protocol.
enum ProtocolMismatch {
    /// What a server reports about a client that begins with TLS.
    static let clientSpeaksTLS =
        "the client began a TLS handshake, but this port is plaintext; give the server a certificate or let the client "
        + "speak plaintext"

    /// What a server reports about a client that sends an HTTP/1.1 request.
    static let clientSpeaksHTTP1 =
        "the client speaks HTTP/1.1, but this port speaks gRPC over HTTP/2; use a gRPC client (gRPC-Web needs a proxy), or "
        + "the admin port for metrics and probes"

    /// What a client reports about a server that answers with TLS.
    static let serverSpeaksTLS =
        "the server speaks TLS, but this side is plaintext; give this side the authority of the server's certificate"

    /// The reasons that a server reports about clients.
    static let ofClients: Set<String> = [Self.clientSpeaksTLS, Self.clientSpeaksHTTP1]

    /// The reason for what a peer sent first (RFC 8446, section 5.1: content type, then major version 3).
    static func reason(firstBytes: UInt16?) -> String? {
        switch firstBytes {
        case 0x1603: Self.clientSpeaksTLS
        case 0x1503: Self.serverSpeaksTLS
        default: nil
        }
    }

    // MARK: - HTTP/1.x

    /// What the first bytes of a client are.
    enum Opening: Sendable, Hashable {
        /// Too few to tell.
        case unclear
        /// HTTP/2, or anything else that its codec shall judge.
        case forCodec
        /// The request line of HTTP/1.x.
        case http1
    }

    /// The longest method in use, `CONNECT` or `PROPFIND`, is shorter.
    private static let longestMethod = 16

    /// Tells the preface of HTTP/2 (RFC 9113, section 3.4) from a request line of HTTP/1.x (RFC 9112, section 3).
    ///
    /// - Parameter bytes: All bytes that the client has sent.
    /// - Returns: What they begin.
    static func opening(_ bytes: some Sequence<UInt8>) -> Opening {
        let start = Array(bytes.prefix(Self.longestMethod + 1))
        let preface = Array("PRI".utf8)
        if start.starts(with: preface) { return .forCodec }
        for (index, byte) in start.enumerated() {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "-"): continue
            case UInt8(ascii: " ") where index > 0: return .http1
            default: return .forCodec
            }
        }
        return start.count > Self.longestMethod ? .forCodec : .unclear
    }

    /// The answer to a request in HTTP/1.x, after which the connection ends.
    static let answerToHTTP1: String = {
        let text =
            "This port speaks gRPC over HTTP/2 and answers no HTTP/1.1, gRPC-Web or REST.\n"
            + "Use a gRPC client, such as grpcurl or `switchyard generate`; docs/protocol.md describes the services.\n"
            + "Metrics and probes are on the admin port (--admin-listen); browsers need a gRPC-Web proxy.\n"
        return "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain; charset=utf-8\r\n"
            + "Content-Length: \(text.utf8.count)\r\nConnection: close\r\n\r\n" + text
    }()
}
