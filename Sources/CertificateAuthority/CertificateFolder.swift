// SPDX-License-Identifier: Apache-2.0

public import Foundation

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// A folder with a development authority and the leaves that it signed.
///
/// It holds `ca.pem` and `ca-key.pem`, and for each leaf `NAME.pem` and `NAME-key.pem`. Only the owner can read keys.
/// Every file is put in place by a rename, so that a process which watches it never reads half of it.
public struct CertificateFolder: Sendable {
    /// A file that was written or found.
    public struct Entry: Sendable, Hashable {
        /// The leaf's name, or `ca`.
        public var name: String
        /// Path of the certificate.
        public var certificate: String
        /// Path of its key.
        public var key: String
        /// When the certificate ends.
        public var notAfter: Date
        /// Whether it was there before.
        public var isReused: Bool
    }

    /// The folder's path.
    public let path: String

    /// Names a folder, which need not exist yet.
    ///
    /// - Parameter path: Its path.
    public init(path: String) {
        self.path = path
    }

    /// Makes leaves, and the authority too where the folder has none.
    ///
    /// - Parameters:
    ///   - leaves: What to sign.
    ///   - replacing: Whether to replace existing leaves; the authority never is.
    ///   - now: The time.
    /// - Returns: The authority, then the leaves.
    /// - Throws: ``CertificateError`` when files are in the way, the authority cannot be used, or writing fails.
    public func make(_ leaves: [LeafCertificate], replacing: Bool, now: Date = Date()) throws -> [Entry] {
        let files = FileManager.default
        let targets = leaves.flatMap { [self.certificatePath($0.name), self.keyPath($0.name)] }
        let existing = targets.filter { files.fileExists(atPath: $0) }
        guard replacing || existing.isEmpty else {
            throw CertificateError(
                "\(existing.joined(separator: ", ")) \(existing.count == 1 ? "exists" : "exist") already; pass --force to "
                    + "replace the leaves (the authority is kept), or name another folder"
            )
        }
        do {
            try files.createDirectory(atPath: self.path, withIntermediateDirectories: true)
        } catch {
            throw CertificateError("cannot create the folder \(self.path): \(error.localizedDescription)")
        }
        var (authority, entry) = try self.authority(now: now)
        entry.notAfter = authority.notAfter
        guard authority.notAfter > now else {
            throw CertificateError(
                "the authority \(entry.certificate) ended on \(authority.notAfter.formatted(.iso8601)); remove it and "
                    + "\(entry.key) to make a new one, and give the new one to every peer"
            )
        }
        var entries = [entry]
        // All are signed before the first is written, so that an invalid name does not leave half a set.
        let issued = try leaves.map { ($0.name, try authority.issue($0, now: now)) }
        for (name, certificate) in issued {
            // The key first: a watcher that sees the new certificate finds its key.
            try self.write(certificate.keyPEM, to: self.keyPath(name), mode: 0o600)
            try self.write(certificate.certificatePEM, to: self.certificatePath(name), mode: 0o644)
            entries.append(
                Entry(
                    name: name,
                    certificate: self.certificatePath(name),
                    key: self.keyPath(name),
                    notAfter: certificate.notAfter,
                    isReused: false
                )
            )
        }
        return entries
    }

    private func authority(now: Date) throws -> (CertificateAuthority, Entry) {
        let files = FileManager.default
        var entry = Entry(
            name: "ca",
            certificate: self.certificatePath("ca"),
            key: self.keyPath("ca"),
            notAfter: now,
            isReused: true
        )
        let found = [entry.certificate, entry.key].filter { files.fileExists(atPath: $0) }
        switch found.count {
        case 2:
            let authority = try CertificateAuthority(
                certificatePEM: try self.read(entry.certificate),
                keyPEM: try self.read(entry.key)
            )
            return (authority, entry)
        case 1:
            throw CertificateError(
                "\(found[0]) exists, but an authority needs both \(entry.certificate) and \(entry.key); restore the other "
                    + "file, or remove this one to make a new authority"
            )
        default:
            let authority = try CertificateAuthority(now: now)
            try self.write(authority.keyPEM, to: entry.key, mode: 0o600)
            try self.write(authority.certificatePEM, to: entry.certificate, mode: 0o644)
            entry.isReused = false
            return (authority, entry)
        }
    }

    private func certificatePath(_ name: String) -> String { "\(self.path)/\(name).pem" }

    private func keyPath(_ name: String) -> String { "\(self.path)/\(name)-key.pem" }

    private func read(_ path: String) throws -> String {
        do {
            return try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw CertificateError("cannot read \(path): \(error.localizedDescription)")
        }
    }

    /// Writes a file under another name with its final mode, then renames it.
    private func write(_ text: String, to path: String, mode: Int) throws {
        let files = FileManager.default
        let draft = "\(path).\(UUID().uuidString).new"
        guard files.createFile(atPath: draft, contents: Data(), attributes: [.posixPermissions: mode]) else {
            throw CertificateError("cannot create \(draft): is the folder writable?")
        }
        do {
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: draft))
            try handle.write(contentsOf: Data(text.utf8))
            try handle.synchronize()
            try handle.close()
            guard rename(draft, path) == 0 else {
                throw CertificateError("cannot rename \(draft) to \(path): \(String(cString: strerror(errno)))")
            }
        } catch {
            try? files.removeItem(atPath: draft)
            throw error as? CertificateError ?? CertificateError("cannot write \(path): \(error)")
        }
    }
}
