// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
internal import Foundation

/// An X.509 certificate that was read or signed.
///
/// Safety: the certificate never changes after it is made, and libcrypto's functions that only read a certificate may
/// run concurrently.
final class SignedCertificate: @unchecked Sendable {
    let pointer: OpaquePointer

    fileprivate init(owning pointer: OpaquePointer) {
        self.pointer = pointer
    }

    /// Reads a certificate.
    ///
    /// - Parameter text: PEM.
    /// - Throws: ``CertificateError`` for anything else.
    init(pem text: String) throws(CertificateError) {
        guard let pointer = LibCrypto.read(text, { PEM_read_bio_X509($0, nil, { _, _, _, _ in -1 }, nil) }) else {
            throw LibCrypto.failure("the authority's certificate is not in PEM")
        }
        self.pointer = pointer
    }

    deinit {
        X509_free(self.pointer)
    }

    /// The certificate as PEM.
    var pem: String {
        get throws(CertificateError) {
            try LibCrypto.pem("a certificate") { PEM_write_bio_X509($0, self.pointer) }
        }
    }

    /// When it ends.
    var notAfter: Date {
        get throws(CertificateError) {
            var parts = tm()
            guard ASN1_TIME_to_tm(X509_get0_notAfter(self.pointer), &parts) == 1 else {
                throw LibCrypto.failure("the authority's certificate has no end date")
            }
            return Date(timeIntervalSince1970: TimeInterval(timegm(&parts)))
        }
    }

    /// Whether a key belongs to this certificate.
    func belongs(to key: SigningKey) -> Bool {
        defer { ERR_clear_error() }
        return X509_check_private_key(self.pointer, key.pointer) == 1
    }

    /// How leaves identify this certificate's key: by its own identifier or, without one, by the hash of its key.
    fileprivate var keyIdentifier: [UInt8] {
        get throws(CertificateError) {
            guard let own = X509_get0_subject_key_id(self.pointer), let bytes = ASN1_STRING_get0_data(own) else {
                return try Self.hash(ofKeyIn: self.pointer)
            }
            return Array(UnsafeBufferPointer(start: bytes, count: Int(ASN1_STRING_length(own))))
        }
    }

    /// The SHA-1 of a certificate's public key (RFC 5280, section 4.2.1.2).
    fileprivate static func hash(ofKeyIn certificate: OpaquePointer) throws(CertificateError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        guard X509_pubkey_digest(certificate, EVP_sha1(), &bytes, &count) == 1 else {
            throw LibCrypto.failure("a certificate's key has no hash")
        }
        return Array(bytes.prefix(Int(count)))
    }
}

/// What a certificate will say, up to its signature.
final class CertificateDraft {
    /// The longest common name (`ub-common-name` of RFC 5280).
    private static let longestName = 64

    private let pointer: OpaquePointer

    /// Begins a certificate with a random serial number.
    init(name: String, key: SigningKey, from begin: Date, until end: Date) throws(CertificateError) {
        guard (1...Self.longestName).contains(name.unicodeScalars.count) else {
            throw CertificateError(
                "the common name \"\(name)\" has \(name.unicodeScalars.count) characters, but must have from 1 to "
                    + "\(Self.longestName); choose a shorter one"
            )
        }
        guard let pointer = X509_new() else { throw LibCrypto.failure("no memory for a certificate") }
        self.pointer = pointer
        guard X509_set_version(pointer, 2) == 1, X509_set_pubkey(pointer, key.pointer) == 1 else {
            throw LibCrypto.failure("a certificate cannot be created")
        }
        try self.number()
        try LibCrypto.with(begin) { X509_set1_notBefore(pointer, $0) }
        try LibCrypto.with(end) { X509_set1_notAfter(pointer, $0) }
        let text = Array(name.utf8)
        guard
            X509_NAME_add_entry_by_NID(
                X509_get_subject_name(pointer),
                NID_commonName,
                MBSTRING_UTF8,
                text,
                Int32(text.count),
                -1,
                0
            ) == 1
        else { throw LibCrypto.failure("the common name \"\(name)\" cannot be set") }
    }

    deinit {
        X509_free(self.pointer)
    }

    /// 159 random bits: as many as 20 octets of a positive number hold.
    private func number() throws(CertificateError) {
        guard let number = BN_new() else { throw LibCrypto.failure("no memory for a serial number") }
        defer { BN_free(number) }
        guard BN_rand(number, 159, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1,
            BN_to_ASN1_INTEGER(number, X509_get_serialNumber(self.pointer)) != nil
        else { throw LibCrypto.failure("a random serial number cannot be drawn") }
    }

    /// Adds an extension in the notation of x509v3_config(5).
    func add(_ kind: Int32, _ value: StaticString) throws(CertificateError) {
        let text = value.withUTF8Buffer { String(decoding: $0, as: UTF8.self) }
        guard let made = switchyard_extension(kind, text) else {
            throw LibCrypto.failure("the extension \(text) cannot be made")
        }
        defer { X509_EXTENSION_free(made) }
        guard X509_add_ext(self.pointer, made, -1) == 1 else {
            throw LibCrypto.failure("the extension \(text) cannot be added")
        }
    }

    /// Adds the names that a leaf is valid for.
    func add(_ names: [LeafCertificate.SubjectName]) throws(CertificateError) {
        guard !names.isEmpty else { return }
        guard let list = GENERAL_NAMES_new() else { throw LibCrypto.failure("no memory for names") }
        defer { GENERAL_NAMES_free(list) }
        for name in names {
            let made = try name.generalName()
            guard switchyard_names_push(list, made) > 0 else {
                GENERAL_NAME_free(made)
                throw LibCrypto.failure("no memory for names")
            }
        }
        guard X509_add1_ext_i2d(self.pointer, NID_subject_alt_name, UnsafeMutableRawPointer(list), 0, 0) == 1 else {
            throw LibCrypto.failure("the names \(names) cannot be added")
        }
    }

    /// Adds the identifier of the certificate's own key.
    func addKeyIdentifier() throws(CertificateError) {
        let identifier = try ASN1Text.make(V_ASN1_OCTET_STRING, try SignedCertificate.hash(ofKeyIn: self.pointer))
        defer { ASN1_STRING_free(identifier) }
        guard X509_add1_ext_i2d(self.pointer, NID_subject_key_identifier, identifier, 0, 0) == 1 else {
            throw LibCrypto.failure("the identifier of the key cannot be added")
        }
    }

    /// Adds the signer: its name, and the identifier of its key.
    func add(issuer: SignedCertificate) throws(CertificateError) {
        guard let identifier = AUTHORITY_KEYID_new() else { throw LibCrypto.failure("no memory for an identifier") }
        defer { AUTHORITY_KEYID_free(identifier) }
        identifier.pointee.keyid = try ASN1Text.make(V_ASN1_OCTET_STRING, try issuer.keyIdentifier)
        guard X509_set_issuer_name(self.pointer, X509_get_subject_name(issuer.pointer)) == 1,
            X509_add1_ext_i2d(self.pointer, NID_authority_key_identifier, identifier, 0, 0) == 1
        else { throw LibCrypto.failure("the authority's name and key cannot be added") }
    }

    /// Names the certificate itself as its issuer.
    func addSelfAsIssuer() throws(CertificateError) {
        guard X509_set_issuer_name(self.pointer, X509_get_subject_name(self.pointer)) == 1 else {
            throw LibCrypto.failure("the authority's name cannot be set")
        }
    }

    /// Signs with ECDSA and SHA-256.
    func signed(by key: SigningKey) throws(CertificateError) -> SignedCertificate {
        guard X509_sign(self.pointer, key.pointer, EVP_sha256()) > 0, X509_up_ref(self.pointer) == 1 else {
            throw LibCrypto.failure("a certificate cannot be signed")
        }
        return SignedCertificate(owning: self.pointer)
    }
}

/// ASN.1's strings.
private enum ASN1Text {
    /// A string that the caller owns.
    static func make(_ kind: Int32, _ bytes: [UInt8]) throws(CertificateError) -> UnsafeMutablePointer<ASN1_STRING> {
        guard let text = ASN1_STRING_type_new(kind) else { throw LibCrypto.failure("no memory for a string") }
        guard let count = Int32(exactly: bytes.count), ASN1_STRING_set(text, bytes, count) == 1 else {
            ASN1_STRING_free(text)
            throw LibCrypto.failure("a string of \(bytes.count) bytes does not fit into a certificate")
        }
        return text
    }
}

extension LeafCertificate.SubjectName {
    /// The name as a certificate holds it; the caller owns it.
    fileprivate func generalName() throws(CertificateError) -> UnsafeMutablePointer<GENERAL_NAME> {
        let (kind, type, bytes) =
            switch self {
            case .dns(let name): (GEN_DNS, V_ASN1_IA5STRING, try Self.printable(name))
            case .uri(let uri): (GEN_URI, V_ASN1_IA5STRING, try Self.printable(uri))
            case .address(let text): (GEN_IPADD, V_ASN1_OCTET_STRING, try Self.address(text))
            }
        guard let name = GENERAL_NAME_new() else { throw LibCrypto.failure("no memory for a name") }
        do throws(CertificateError) {
            GENERAL_NAME_set0_value(name, kind, try ASN1Text.make(type, bytes))
        } catch {
            GENERAL_NAME_free(name)
            throw error
        }
        return name
    }

    private static func address(_ text: String) throws(CertificateError) -> [UInt8] {
        guard let bytes = self.bytes(ofAddress: text) else {
            throw CertificateError("\"\(text)\" is not an IP address; write it without port and brackets")
        }
        return bytes
    }

    /// Names have only printable ASCII: different peers read anything else differently.
    private static func printable(_ text: String) throws(CertificateError) -> [UInt8] {
        let bytes = Array(text.utf8)
        guard !bytes.isEmpty, bytes.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw CertificateError("the name \"\(text)\" may have only printable ASCII characters, and no spaces")
        }
        return bytes
    }
}
