// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
internal import Foundation

/// Helpers for calls of OpenSSL's libcrypto.
enum LibCrypto {
    /// The years 1 to 9999, in seconds after 1970: as far as a certificate's times go (RFC 5280, section 4.1.2.5).
    private static let times = -62_135_596_800...253_402_300_799

    /// An error with the library's own words, whose queue is empty afterwards.
    ///
    /// - Parameter complaint: What could not be done.
    /// - Returns: The error.
    static func failure(_ complaint: String) -> CertificateError {
        var text = [CChar](repeating: 0, count: 256)
        var last: UInt = 0
        while case let code = ERR_get_error(), code != 0 { last = code }
        guard last != 0 else { return CertificateError(complaint) }
        ERR_error_string_n(last, &text, text.count)
        let words = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return CertificateError("\(complaint): \(String(decoding: words, as: UTF8.self))")
    }

    /// The PEM text that a function writes.
    static func pem(_ what: String, _ write: (OpaquePointer) -> Int32) throws(CertificateError) -> String {
        guard let bio = BIO_new(BIO_s_mem()) else { throw self.failure("no memory for \(what)") }
        defer { BIO_free(bio) }
        var bytes: UnsafeMutablePointer<CChar>?
        guard write(bio) == 1, case let count = switchyard_bio_bytes(bio, &bytes), count > 0, let bytes else {
            throw self.failure("\(what) cannot be written as PEM")
        }
        return String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
    }

    /// Hands the bytes of a text to a function that reads PEM; nil where it finds nothing.
    static func read<Result>(_ text: String, _ body: (OpaquePointer) -> Result?) -> Result? {
        let bytes = Array(text.utf8)
        guard let count = Int32(exactly: bytes.count) else { return nil }
        return bytes.withUnsafeBytes { buffer in
            guard let bio = BIO_new_mem_buf(buffer.baseAddress, count) else { return nil }
            defer { BIO_free(bio) }
            return body(bio)
        }
    }

    /// Gives a time to a function that copies it.
    static func with(_ date: Date, _ body: (UnsafePointer<ASN1_TIME>) -> Int32) throws(CertificateError) {
        let seconds = date.timeIntervalSince1970.rounded(.down)
        guard let whole = time_t(exactly: seconds), self.times.contains(whole), let time = ASN1_TIME_set(nil, whole)
        else {
            throw self.failure(
                "a certificate cannot hold a time \(seconds) s after 1970: its last year is 9999; give fewer days"
            )
        }
        defer { ASN1_STRING_free(time) }
        guard body(time) == 1 else { throw self.failure("the time \(date) cannot be set") }
    }
}

/// An ECDSA key over P-256.
///
/// Safety: the key never changes after it is made, and libcrypto's functions that only read a key may run concurrently.
final class SigningKey: @unchecked Sendable {
    private static let curve = "prime256v1"

    let pointer: OpaquePointer

    /// Makes a new key.
    init() throws(CertificateError) {
        guard let pointer = switchyard_p256_key() else { throw LibCrypto.failure("no key over P-256 can be made") }
        self.pointer = pointer
    }

    /// Reads a key.
    ///
    /// - Parameter text: PEM, in the form of PKCS #8 or of SEC 1.
    /// - Throws: ``CertificateError`` for anything else, and for a key of another kind or with a password.
    init(pem text: String) throws(CertificateError) {
        // A key with a password is refused; without this function the library would ask at the terminal.
        let pointer = LibCrypto.read(text) { PEM_read_bio_PrivateKey($0, nil, { _, _, _, _ in -1 }, nil) }
        guard let pointer else { throw LibCrypto.failure("the authority's key is not an ECDSA P-256 key in PEM") }
        self.pointer = pointer
        var name = [CChar](repeating: 0, count: 64)
        guard EVP_PKEY_get_base_id(pointer) == EVP_PKEY_EC,
            EVP_PKEY_get_group_name(pointer, &name, name.count, nil) == 1,
            name.prefix(while: { $0 != 0 }).elementsEqual(Self.curve.utf8.map { CChar(bitPattern: $0) })
        else { throw LibCrypto.failure("the authority's key is not an ECDSA P-256 key in PEM: it is of another kind") }
    }

    deinit {
        EVP_PKEY_free(self.pointer)
    }

    /// The key as PEM (PKCS #8).
    var pem: String {
        get throws(CertificateError) {
            try LibCrypto.pem("a key") { PEM_write_bio_PKCS8PrivateKey($0, self.pointer, nil, nil, 0, nil, nil) }
        }
    }
}
