// SPDX-License-Identifier: Apache-2.0

public import Foundation

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// What a leaf certificate says: the names in it, what it is for, how long it lasts.
public struct LeafCertificate: Sendable, Hashable {
    /// A name that a certificate is valid for.
    public enum SubjectName: Sendable, Hashable {
        /// A DNS name.
        case dns(String)
        /// An IPv4 or IPv6 address as text.
        case address(String)
        /// A URI, such as an identity of a workload.
        case uri(String)
    }

    /// The common name, for people; peers use only the alternative names.
    public var name: String
    /// The names that the certificate is valid for.
    public var subjectAlternativeNames: [SubjectName]
    /// Whether servers may present it.
    public var isServer: Bool
    /// Whether clients may present it.
    public var isClient: Bool
    /// How long it lasts, in seconds; a negative number makes an expired one.
    public var lifetime: TimeInterval

    /// Describes a leaf.
    ///
    /// - Parameters:
    ///   - name: The common name.
    ///   - subjectAlternativeNames: The names that the certificate is valid for.
    ///   - isServer: Whether servers may present it.
    ///   - isClient: Whether clients may present it.
    ///   - lifetime: How long it lasts, in seconds.
    public init(
        name: String,
        subjectAlternativeNames: [SubjectName],
        isServer: Bool = true,
        isClient: Bool = true,
        lifetime: TimeInterval = 397 * 86_400
    ) {
        self.name = name
        self.subjectAlternativeNames = subjectAlternativeNames
        self.isServer = isServer
        self.isClient = isClient
        self.lifetime = lifetime
    }
}

extension LeafCertificate.SubjectName {
    /// Reads a host as people write it: an address, or else a DNS name, which may begin with `*.`.
    ///
    /// - Parameter host: The host.
    /// - Throws: ``CertificateError`` for any other text.
    public init(host: String) throws {
        if Self.bytes(ofAddress: host) != nil {
            self = .address(host)
            return
        }
        let labels = host.split(separator: ".", omittingEmptySubsequences: false)
        let isValid =
            (1...253).contains(host.utf8.count)
            && labels.enumerated()
                .allSatisfy { index, label in
                    if index == 0 && labels.count > 1 && label == "*" { return true }
                    return (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
                        && label.utf8.allSatisfy(Self.isLabelByte)
                }
        guard isValid else {
            throw CertificateError(
                "the host \"\(host)\" is neither a DNS name (letters, digits, hyphens and dots, at most 253 bytes) nor an "
                    + "IP address; write it without port and brackets"
            )
        }
        self = .dns(host)
    }

    private static func isLabelByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// Four or sixteen bytes in network order; nil for a text that is not an address.
    static func bytes(ofAddress text: String) -> [UInt8]? {
        for (family, count) in [(AF_INET, 4), (AF_INET6, 16)] {
            var bytes = [UInt8](repeating: 0, count: count)
            if inet_pton(family, text, &bytes) == 1 { return bytes }
        }
        return nil
    }
}
