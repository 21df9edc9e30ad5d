// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Reads small files that hold secrets, and checks who else can read them.
public enum SecretFile {
    /// The largest size of a token file.
    private static let maxBytes = 1 << 20

    /// A file's content.
    public struct Contents: Sendable {
        /// Its text.
        public var text: String
        /// Whether every user of the machine can read it.
        public var isReadableByAll: Bool
    }

    /// Reads a file.
    ///
    /// - Parameter path: The file's path.
    /// - Returns: Its text and who can read it.
    /// - Throws: ``Settings/Failure`` if it cannot be read, is too large or is not text.
    public static func read(_ path: String) throws(Settings.Failure) -> Contents {
        let attributes: [FileAttributeKey: Any]
        let data: Data
        do {
            let resolved = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
            attributes = try FileManager.default.attributesOfItem(atPath: resolved)
            guard attributes[.type] as? FileAttributeType == .typeRegular else {
                throw Settings.Failure("\(path) is not a regular file; name a file with tokens")
            }
            let size = (attributes[.size] as? NSNumber)?.intValue ?? 0
            guard size <= Self.maxBytes else {
                throw Settings.Failure("\(path) has \(size) bytes, more than \(Self.maxBytes); name a file with tokens")
            }
            data = try Data(contentsOf: URL(fileURLWithPath: resolved))
        } catch let failure as Settings.Failure {
            throw failure
        } catch {
            throw Settings.Failure("cannot read \(path): \(error.localizedDescription)")
        }
        guard let text = String(data: data, encoding: .utf8) else {
            throw Settings.Failure("\(path) is not UTF-8 text; name a file with tokens")
        }
        let mode = (attributes[.posixPermissions] as? NSNumber)?.intValue ?? 0
        return Contents(text: text, isReadableByAll: mode & 0o004 != 0)
    }

    /// Reads the one token of a client.
    ///
    /// - Parameter path: The file's path; it holds only the token; white space around it is ignored.
    /// - Returns: The token.
    /// - Throws: ``Settings/Failure`` if it cannot be read, every user can read it, or it does not hold exactly one
    ///   token.
    public static func readToken(_ path: String) throws(Settings.Failure) -> String {
        let contents = try Self.read(path)
        guard !contents.isReadableByAll else { throw Self.readableByAll(path) }
        let token = contents.text.trimmingCharacters(in: .whitespacesAndNewlines)
        guard !token.isEmpty, token.utf8.count <= BearerTokens.maximumTokenBytes, BearerTokens.isToken(token[...])
        else {
            throw Settings.Failure("\(path) must hold one token and nothing else: letters, digits and -._~+/=")
        }
        return token
    }

    /// The error about a secret that every user can read.
    static func readableByAll(_ path: String) -> Settings.Failure {
        Settings.Failure("\(path) holds a secret, but every user of this machine can read it; run: chmod o-r \(path)")
    }
}
