// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL

/// A SHA-256 or SHA-1 over bytes as they arrive, computed by OpenSSL's libcrypto.
public final class RunningDigest {
    /// Which digest.
    public enum Algorithm: String, Sendable, Hashable {
        /// The digest that everything here is verified with.
        case sha256 = "SHA-256"
        /// What git names its files with; no protection against attackers.
        case sha1 = "SHA-1"
    }

    private let algorithm: Algorithm
    private let context: OpaquePointer
    /// Whether a step failed, so that there is no digest.
    private var hasFailed = false

    /// Starts a digest over nothing.
    ///
    /// - Parameter algorithm: Which digest.
    /// - Throws: ``DigestError`` when libcrypto does not offer it.
    public init(_ algorithm: Algorithm) throws(DigestError) {
        guard let context = EVP_MD_CTX_new() else { throw DigestError(algorithm) }
        self.algorithm = algorithm
        self.context = context
        let kind =
            switch algorithm {
            case .sha256: EVP_sha256()
            case .sha1: EVP_sha1()
            }
        guard EVP_DigestInit_ex(context, kind, nil) == 1 else { throw DigestError(algorithm) }
    }

    deinit {
        EVP_MD_CTX_free(self.context)
    }

    /// Adds bytes.
    ///
    /// - Parameter bytes: What follows the bytes so far.
    public func update(_ bytes: UnsafeRawBufferPointer) {
        guard let start = bytes.baseAddress, !bytes.isEmpty else { return }
        if EVP_DigestUpdate(self.context, start, bytes.count) != 1 { self.hasFailed = true }
    }

    /// Adds bytes.
    ///
    /// - Parameter bytes: What follows the bytes so far.
    public func update(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { self.update($0) }
    }

    /// The digest of the bytes so far; more may follow.
    ///
    /// - Returns: 32 bytes for SHA-256, 20 for SHA-1.
    /// - Throws: ``DigestError`` when libcrypto failed.
    public func digest() throws(DigestError) -> [UInt8] {
        guard !self.hasFailed, let copy = EVP_MD_CTX_new() else { throw DigestError(self.algorithm) }
        defer { EVP_MD_CTX_free(copy) }
        var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        guard EVP_MD_CTX_copy_ex(copy, self.context) == 1, EVP_DigestFinal_ex(copy, &bytes, &count) == 1 else {
            throw DigestError(self.algorithm)
        }
        return Array(bytes.prefix(Int(count)))
    }
}

extension RunningDigest {
    /// The SHA-256 of bytes in memory.
    ///
    /// - Parameter bytes: The bytes.
    /// - Returns: 32 bytes.
    /// - Throws: ``DigestError`` when libcrypto does not offer it.
    public static func sha256(_ bytes: [UInt8]) throws(DigestError) -> [UInt8] {
        let digest = try RunningDigest(.sha256)
        digest.update(bytes)
        return try digest.digest()
    }

    /// Bytes as people and manifests write them.
    ///
    /// - Parameter bytes: The bytes.
    /// - Returns: Two lowercase hexadecimal digits per byte.
    public static func hexadecimal(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// Compares two digests in a time that does not depend on where they differ.
    ///
    /// - Parameters:
    ///   - one: A digest.
    ///   - other: Another.
    /// - Returns: Whether they are equal.
    public static func areEqual(_ one: [UInt8], _ other: [UInt8]) -> Bool {
        one.count == other.count && CRYPTO_memcmp(one, other, one.count) == 0
    }
}

/// A digest cannot be computed on this machine.
public struct DigestError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The digest.
    public var algorithm: RunningDigest.Algorithm

    init(_ algorithm: RunningDigest.Algorithm) {
        self.algorithm = algorithm
    }

    /// What is wrong and what to do about it.
    public var description: String {
        "OpenSSL's libcrypto cannot compute \(self.algorithm.rawValue) here; check that the file that OPENSSL_CONF names, "
            + "or the system's openssl.cnf, activates a provider that has it, such as \"default\""
    }
}
