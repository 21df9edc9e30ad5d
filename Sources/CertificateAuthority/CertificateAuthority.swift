// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
public import Foundation

/// A small certificate authority for development: one self-signed root that signs leaf certificates.
///
/// Keys are ECDSA over P-256. Certificates follow RFC 5280: the root is a critical CA with path length zero, leaves name
/// their hosts and identities as subject alternative names only.
public struct CertificateAuthority: Sendable {
    /// How far clocks of other machines may be behind.
    private static let clockSlack: TimeInterval = 3_600

    /// The root certificate as PEM.
    public let certificatePEM: String

    /// The root's key as PEM (PKCS #8).
    public let keyPEM: String

    /// When the root ends.
    public let notAfter: Date

    private let key: SigningKey
    private let certificate: SignedCertificate

    /// Creates a new root.
    ///
    /// - Parameters:
    ///   - name: Its common name.
    ///   - now: When it begins, less an hour for clocks that are behind.
    ///   - days: How long it lasts.
    /// - Throws: ``CertificateError`` when the certificate cannot be made.
    public init(name: String = "Switchyard development CA", now: Date = Date(), days: Int = 3_650) throws {
        let key = try SigningKey()
        let notAfter = now + TimeInterval(days) * 86_400
        let draft = try CertificateDraft(name: name, key: key, from: now - Self.clockSlack, until: notAfter)
        try draft.addSelfAsIssuer()
        try draft.add(NID_basic_constraints, "critical,CA:TRUE,pathlen:0")
        try draft.add(NID_key_usage, "critical,keyCertSign,cRLSign")
        try draft.addKeyIdentifier()
        self.key = key
        self.keyPEM = try key.pem
        self.certificate = try draft.signed(by: key)
        self.certificatePEM = try self.certificate.pem
        self.notAfter = notAfter
    }

    /// Loads an existing root.
    ///
    /// - Parameters:
    ///   - certificatePEM: Its certificate.
    ///   - keyPEM: Its key.
    /// - Throws: ``CertificateError`` when they cannot be read or do not belong together.
    public init(certificatePEM: String, keyPEM: String) throws {
        let certificate = try SignedCertificate(pem: certificatePEM)
        let key = try SigningKey(pem: keyPEM)
        guard certificate.belongs(to: key) else {
            throw CertificateError("the authority's key does not belong to its certificate")
        }
        self.key = key
        self.keyPEM = try key.pem
        self.certificate = certificate
        self.certificatePEM = certificatePEM
        self.notAfter = try certificate.notAfter
    }

    /// Signs a new leaf with a new key.
    ///
    /// - Parameters:
    ///   - leaf: What it names and how long it lasts.
    ///   - now: When it begins, less an hour for clocks that are behind.
    /// - Returns: The certificate and its key.
    /// - Throws: ``CertificateError`` when the root has ended or a name is malformed.
    public func issue(_ leaf: LeafCertificate, now: Date = Date()) throws -> IssuedCertificate {
        let key = try SigningKey()
        let end = min(now + leaf.lifetime, self.notAfter)
        let begin = min(now, end) - Self.clockSlack
        let draft = try CertificateDraft(name: leaf.name, key: key, from: begin, until: end)
        try draft.add(NID_basic_constraints, "critical,CA:FALSE")
        try draft.add(NID_key_usage, "critical,digitalSignature")
        switch (leaf.isServer, leaf.isClient) {
        case (true, true): try draft.add(NID_ext_key_usage, "serverAuth,clientAuth")
        case (true, false): try draft.add(NID_ext_key_usage, "serverAuth")
        case (false, true): try draft.add(NID_ext_key_usage, "clientAuth")
        case (false, false):
            throw CertificateError(
                "the leaf \"\(leaf.name)\" must be for servers, for clients or for both"
            )
        }
        try draft.add(leaf.subjectAlternativeNames)
        try draft.addKeyIdentifier()
        try draft.add(issuer: self.certificate)
        return IssuedCertificate(
            certificatePEM: try draft.signed(by: self.key).pem,
            keyPEM: try key.pem,
            notAfter: end
        )
    }
}

/// A leaf certificate and its key.
public struct IssuedCertificate: Sendable {
    /// The certificate as PEM.
    public var certificatePEM: String
    /// The key as PEM (PKCS #8).
    public var keyPEM: String
    /// When the certificate ends.
    public var notAfter: Date
}

/// Why a certificate cannot be made or written.
public struct CertificateError: Error, Sendable, CustomStringConvertible {
    /// What is wrong and what to do about it.
    public var description: String

    /// Creates an error.
    ///
    /// - Parameter description: What is wrong and what to do about it.
    public init(_ description: String) {
        self.description = description
    }
}
