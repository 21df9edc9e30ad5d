// SPDX-License-Identifier: Apache-2.0

internal import Crypto
public import Foundation
internal import SwiftASN1
internal import X509

/// A small certificate authority for development: one self-signed root that signs leaf certificates.
///
/// Keys are ECDSA over P-256. Certificates follow RFC 5280: the root is a critical CA with path length zero, leaves name
/// their hosts and identities as subject alternative names only.
public struct CertificateAuthority: Sendable {
    /// Clocks of other machines may be behind by so much.
    private static let clockSlack: TimeInterval = 3_600

    /// The root certificate as PEM.
    public let certificatePEM: String

    /// The root's key as PEM (PKCS #8).
    public let keyPEM: String

    /// When the root ends.
    public let notAfter: Date

    private let key: P256.Signing.PrivateKey
    private let certificate: Certificate

    /// Creates a new root.
    ///
    /// - Parameters:
    ///   - name: Its common name.
    ///   - now: When it begins, less an hour for clocks that are behind.
    ///   - days: How long it lasts.
    /// - Throws: ``CertificateError`` when the certificate cannot be made.
    public init(name: String = "Switchyard development CA", now: Date = Date(), days: Int = 3_650) throws {
        let key = P256.Signing.PrivateKey()
        let subject = try DistinguishedName { CommonName(name) }
        let publicKey = Certificate.PublicKey(key.publicKey)
        let notAfter = now + TimeInterval(days) * 86_400
        let certificate = try Certificate(
            version: .v3,
            serialNumber: Certificate.SerialNumber(),
            publicKey: publicKey,
            notValidBefore: now - Self.clockSlack,
            notValidAfter: notAfter,
            issuer: subject,
            subject: subject,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                SubjectKeyIdentifier(hash: publicKey)
            },
            issuerPrivateKey: Certificate.PrivateKey(key)
        )
        self.key = key
        self.keyPEM = key.pemRepresentation + "\n"
        self.certificate = certificate
        self.certificatePEM = try certificate.serializeAsPEM().pemString + "\n"
        self.notAfter = notAfter
    }

    /// Takes a root that exists.
    ///
    /// - Parameters:
    ///   - certificatePEM: Its certificate.
    ///   - keyPEM: Its key.
    /// - Throws: ``CertificateError`` when they cannot be read or do not belong together.
    public init(certificatePEM: String, keyPEM: String) throws {
        let certificate: Certificate
        do {
            certificate = try Certificate(pemEncoded: certificatePEM)
        } catch {
            throw CertificateError("the authority's certificate is not one in PEM: \(error)")
        }
        let key: P256.Signing.PrivateKey
        do {
            key = try P256.Signing.PrivateKey(pemRepresentation: keyPEM)
        } catch {
            throw CertificateError("the authority's key is not an ECDSA P-256 key in PEM: \(error)")
        }
        guard certificate.publicKey == Certificate.PublicKey(key.publicKey) else {
            throw CertificateError("the authority's key does not belong to its certificate")
        }
        self.key = key
        self.keyPEM = key.pemRepresentation + "\n"
        self.certificate = certificate
        self.certificatePEM = certificatePEM
        self.notAfter = certificate.notValidAfter
    }

    /// Signs a new leaf with a new key.
    ///
    /// - Parameters:
    ///   - leaf: What it names and how long it lasts.
    ///   - now: When it begins, less an hour for clocks that are behind.
    /// - Returns: The certificate and its key.
    /// - Throws: ``CertificateError`` when the root has ended or a name is malformed.
    public func issue(_ leaf: LeafCertificate, now: Date = Date()) throws -> IssuedCertificate {
        let key = P256.Signing.PrivateKey()
        let publicKey = Certificate.PublicKey(key.publicKey)
        let end = min(now + leaf.lifetime, self.notAfter)
        let begin = min(now, end) - Self.clockSlack
        let names = try leaf.subjectAlternativeNames.map { try $0.generalName }
        let certificate = try Certificate(
            version: .v3,
            serialNumber: Certificate.SerialNumber(),
            publicKey: publicKey,
            notValidBefore: begin,
            notValidAfter: end,
            issuer: self.certificate.subject,
            subject: try DistinguishedName { CommonName(leaf.name) },
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage(
                    (leaf.isServer ? [.serverAuth] : []) + (leaf.isClient ? [.clientAuth] : [])
                )
                SubjectAlternativeNames(names)
                SubjectKeyIdentifier(hash: publicKey)
                AuthorityKeyIdentifier(
                    keyIdentifier: SubjectKeyIdentifier(hash: self.certificate.publicKey).keyIdentifier
                )
            },
            issuerPrivateKey: Certificate.PrivateKey(self.key)
        )
        return IssuedCertificate(
            certificatePEM: try certificate.serializeAsPEM().pemString + "\n",
            keyPEM: key.pemRepresentation + "\n",
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
