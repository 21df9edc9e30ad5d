// SPDX-License-Identifier: Apache-2.0

/// Recognizes TLS where plaintext was expected, which otherwise looks like a peer that breaks the protocol.
enum ProtocolMismatch {
    /// What a server reports about a client that begins with TLS.
    static let clientSpeaksTLS =
        "the client began a TLS handshake, but this port is plaintext; give the server a certificate or let the client "
        + "speak plaintext"

    /// What a client reports about a server that answers with TLS.
    static let serverSpeaksTLS =
        "the server speaks TLS, but this side is plaintext; give this side the authority of the server's certificate"

    /// The reason for what a peer sent first (RFC 8446, section 5.1: content type, then major version 3).
    static func reason(firstBytes: UInt16?) -> String? {
        switch firstBytes {
        case 0x1603: Self.clientSpeaksTLS
        case 0x1503: Self.serverSpeaksTLS
        default: nil
        }
    }
}
