// SPDX-License-Identifier: Apache-2.0

internal import NIOSSL

/// Who the other end of a connection is, by the certificate that it has proved to hold.
public struct PeerIdentity: Sendable, Hashable, CustomStringConvertible {
    /// The certificate's DNS names.
    public var dnsNames: [String]
    /// The certificate's URIs.
    public var uris: [String]

    /// Creates an identity.
    ///
    /// - Parameters:
    ///   - dnsNames: The certificate's DNS names.
    ///   - uris: The certificate's URIs.
    public init(dnsNames: [String], uris: [String]) {
        self.dnsNames = dnsNames
        self.uris = uris
    }

    /// Whether one of the names is on a list.
    ///
    /// DNS names are compared without regard to case, URIs exactly. A wildcard name in a certificate is a name for
    /// servers and matches nothing here.
    ///
    /// - Parameter names: The list.
    /// - Returns: Whether it holds a name of this peer.
    public func isListed(in names: [String]) -> Bool {
        let lowered = Set(self.dnsNames.filter { !$0.contains("*") }.map { $0.lowercased() })
        return names.contains { self.uris.contains($0) || lowered.contains($0.lowercased()) }
    }

    /// Whether the certificate is for a server of this name.
    ///
    /// A wildcard stands for the whole first label and nothing else (RFC 9525, section 6.3).
    ///
    /// - Parameter serverName: A DNS name.
    /// - Returns: Whether one of the DNS names is that name.
    public func covers(serverName: String) -> Bool {
        let wanted = serverName.lowercased()
        let rest = wanted.firstIndex(of: ".").map { wanted[$0...] }
        return self.dnsNames.contains { name in
            let name = name.lowercased()
            if name == wanted { return true }
            guard name.hasPrefix("*."), let rest else { return false }
            return name.dropFirst() == rest
        }
    }

    /// The names, URIs first.
    public var description: String {
        let names = self.uris + self.dnsNames
        return names.isEmpty ? "a certificate without names" : names.joined(separator: ", ")
    }
}

extension PeerIdentity {
    /// The names of a certificate; those that are not printable ASCII are left out.
    init(_ certificate: NIOSSLCertificate) {
        self.init(dnsNames: [], uris: [])
        for name in certificate._subjectAlternativeNames() {
            let text = name.contents.withUnsafeBufferPointer { bytes -> String? in
                guard !bytes.isEmpty, bytes.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
                return String(decoding: bytes, as: UTF8.self)
            }
            guard let text else { continue }
            switch name.nameType {
            case .dnsName: self.dnsNames.append(text)
            case .uri: self.uris.append(text)
            default: break
            }
        }
    }
}
