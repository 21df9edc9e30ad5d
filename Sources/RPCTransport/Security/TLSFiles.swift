// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore
internal import NIOSSL

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Reads certificates and keys, with errors that name the file.
enum TLSFiles {
    /// The protocol inside TLS, by its name in ALPN (RFC 9113, section 3.2).
    static let applicationProtocol = "h2"

    /// Ciphers of TLS 1.2: ephemeral keys and authenticated encryption alone, as all of TLS 1.3 are.
    ///
    /// HTTP/2 refuses the others (RFC 9113, section 9.2.2 and appendix A).
    static let cipherSuites = "ECDHE+AESGCM:ECDHE+CHACHA20"

    /// How long a closing connection waits for the peer to close too.
    static let shutdownTimeout = TimeAmount.milliseconds(500)

    /// How long before its end a certificate is logged.
    private static let warningSeconds = 7 * 86_400

    /// No genuine certificate file is larger.
    private static let maxBytes = 1 << 20

    /// A certificate chain, the leaf first.
    static func certificates(_ path: String) throws(TLSError) -> [NIOSSLCertificate] {
        let bytes = try Self.read(path)
        guard let certificates = try? NIOSSLCertificate.fromPEMBytes(bytes), !certificates.isEmpty else {
            throw TLSError(
                "\(path) holds no certificate in PEM (BEGIN CERTIFICATE); give the chain, the leaf first, as `switchyard "
                    + "certs` writes it"
            )
        }
        return certificates
    }

    /// A private key.
    static func key(_ path: String) throws(TLSError) -> NIOSSLPrivateKey {
        let bytes = try Self.read(path)
        guard let key = try? NIOSSLPrivateKey(bytes: bytes, format: .pem) else {
            throw TLSError(
                "\(path) holds no private key in PEM that can be read without a passphrase (BEGIN PRIVATE KEY); decrypt it "
                    + "or name another file"
            )
        }
        return key
    }

    /// A context from a configuration, with common mistakes explained.
    static func context(
        _ configuration: TLSConfiguration,
        certificate: String?,
        key: String?
    ) throws(TLSError) -> NIOSSLContext {
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            let reason = TLSFailure.codes(in: error).joined(separator: ", ")
            // Both were already read, so the only fault left is that they do not match.
            let isMismatch = (error as? NIOSSLError) == .failedToLoadPrivateKey || reason.contains("MISMATCH")
            if isMismatch {
                throw TLSError(
                    "the key in \(key ?? "?") does not belong to the certificate in \(certificate ?? "?"); give the two files "
                        + "that were made together"
                )
            }
            throw TLSError(
                "the certificate in \(certificate ?? "?") and the key in \(key ?? "?") cannot be used: "
                    + (reason.isEmpty ? "\(error)" : reason)
            )
        }
    }

    /// Refuses to replace a valid certificate with an expired one on reload.
    static func checkDates(
        of new: [NIOSSLCertificate],
        path: String,
        current: [NIOSSLCertificate]?,
        now: Int
    ) throws(TLSError) {
        guard let leaf = new.first, leaf.notValidAfter < now else { return }
        guard let current = current?.first, current.notValidAfter >= now else { return }
        throw TLSError(
            "the certificate in \(path) ended on \(Self.date(leaf.notValidAfter)), but the one in use has not; put a fresh one "
                + "in its place"
        )
    }

    /// Warns when a loaded certificate has ended or soon will.
    static func warnOfEnd(of certificates: [NIOSSLCertificate], path: String, logger: Logger) {
        guard let leaf = certificates.first, leaf.notValidAfter < Self.now + Self.warningSeconds else { return }
        let hasEnded = leaf.notValidAfter < Self.now
        logger.warning(
            "a certificate \(hasEnded ? "has ended: peers will refuse it" : "ends soon"); put a fresh one in its place",
            metadata: ["file": "\(path)", "end": "\(Self.date(leaf.notValidAfter))"]
        )
    }

    /// The time in seconds since 1970.
    static var now: Int { time(nil) }

    /// A point in time as `2026-01-31 12:00:00 UTC`.
    static func date(_ seconds: Int) -> String {
        var seconds = seconds
        var parts = tm()
        guard gmtime_r(&seconds, &parts) != nil else { return "\(seconds) s after 1970" }
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(parts.tm_year + 1_900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) UTC"
    }

    private static func read(_ path: String) throws(TLSError) -> [UInt8] {
        // Not blocking: opening a pipe without a writer would wait for ever.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw TLSError(
                "cannot read \(path): \(String(cString: strerror(errno))); name a file that this process may read"
            )
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw TLSError("\(path) is not a regular file; name a file with certificates or a key")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = Self.readSome(descriptor, &chunk)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw TLSError("cannot read \(path): \(String(cString: strerror(errno)))") }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
            guard bytes.count <= Self.maxBytes else {
                throw TLSError(
                    "\(path) has more than \(Self.maxBytes) bytes; name a file that holds only certificates or a key"
                )
            }
        }
    }

    private static func readSome(_ descriptor: Int32, _ chunk: inout [UInt8]) -> Int {
        chunk.withUnsafeMutableBytes { unsafe in
            #if canImport(Glibc)
            Glibc.read(descriptor, unsafe.baseAddress, unsafe.count)
            #elseif canImport(Musl)
            Musl.read(descriptor, unsafe.baseAddress, unsafe.count)
            #elseif canImport(Darwin)
            Darwin.read(descriptor, unsafe.baseAddress, unsafe.count)
            #endif
        }
    }
}
