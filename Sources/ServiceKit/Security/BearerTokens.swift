// SPDX-License-Identifier: Apache-2.0

internal import Digests
internal import RPCCore

/// The tokens that callers may present, as a pure value: only their SHA-256 is kept.
///
/// A token is a random text, so one round of SHA-256 hides it well; a password would need more. A line of the file is
/// `name:token` or `name:sha256:` and 64 hexadecimal digits. A name may appear on several lines, so that a new token
/// is accepted before the old one is removed. Empty lines and lines that start with `#` are ignored.
public struct BearerTokens: Sendable {
    /// Why a call is refused.
    public enum Refusal: Error, Sendable, Hashable {
        /// No token was presented.
        case missing
        /// The value is not `Bearer TOKEN`, or there are two.
        case malformed
        /// The token is unknown.
        case unknown

        /// The message to the caller; it never repeats what the caller sent.
        public var message: String {
            switch self {
            case .missing:
                "this server requires a token: send the metadata \"authorization: Bearer TOKEN\" "
                    + "(switchyard: --token-file FILE or SWITCHYARD_TOKEN)"
            case .malformed:
                "the metadata \"authorization\" must be given once, as \"Bearer TOKEN\""
            case .unknown:
                "this server does not know the token; ask its operator for a valid one"
            }
        }
    }

    private struct Entry: Sendable {
        var name: String
        var digest: [UInt8]
    }

    /// A token shorter than this can be guessed.
    public static let minimumTokenBytes = 16
    /// The longest token.
    public static let maximumTokenBytes = 4_096
    /// The most lines with a token: each call is compared with all of them.
    public static let maximumCount = 1_000

    private let entries: [Entry]

    /// Whether the file holds a token itself, and not only its hash.
    public let holdsPlainTokens: Bool

    /// Reads the tokens of a file.
    ///
    /// - Parameters:
    ///   - text: The file's text.
    ///   - file: The file's name, for messages.
    /// - Throws: ``Settings/Failure`` naming the first line that cannot be used, without its content.
    public init(parsing text: String, file: String) throws(Settings.Failure) {
        // A machine without SHA-256 fails at start-up, instead of refusing every caller's token.
        _ = try Self.digest(of: "")
        var entries: [Entry] = []
        var holdsPlainTokens = false
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            var line = line
            while let last = line.last, last.isWhitespace { line.removeLast() }
            line = line.drop { $0 == " " || $0 == "\t" }
            guard let first = line.first, first != "#" else { continue }
            let place = "\(file):\(index + 1)"
            guard let colon = line.firstIndex(of: ":") else {
                throw Settings.Failure("\(place): no colon; a line is name:token or name:sha256:HEX")
            }
            let name = line[..<colon]
            guard Self.isName(name) else {
                throw Settings.Failure(
                    "\(place): the name before the colon must be 1 to 64 letters, digits, dots, hyphens or underscores"
                )
            }
            let rest = line[line.index(after: colon)...]
            let digest: [UInt8]
            if rest.hasPrefix("sha256:") {
                digest = try Self.digest(hex: rest.dropFirst("sha256:".count), place: place)
            } else {
                try Self.check(token: rest, place: place)
                digest = try Self.digest(of: rest)
                holdsPlainTokens = true
            }
            guard !entries.contains(where: { $0.digest == digest }) else {
                throw Settings.Failure(
                    "\(place): the token of \(name) appears twice in the file; remove one of the lines"
                )
            }
            guard entries.count < Self.maximumCount else {
                throw Settings.Failure("\(place): more than \(Self.maximumCount) tokens; remove those not in use")
            }
            entries.append(Entry(name: String(name), digest: digest))
        }
        guard !entries.isEmpty else {
            throw Settings.Failure(
                "\(file) holds no token; write a line name:token, with a token from `openssl rand -hex 32`"
            )
        }
        self.entries = entries
        self.holdsPlainTokens = holdsPlainTokens
    }

    /// How many tokens are known.
    public var count: Int { self.entries.count }

    /// Looks up the token that a caller presents.
    ///
    /// Its duration does not reveal how much of a token was right: whole hashes are compared, with all entries.
    ///
    /// - Parameter authorization: The values of the metadata `authorization`.
    /// - Returns: The token's name, or why the call is refused.
    public func holder(of authorization: [String]) -> Result<String, Refusal> {
        guard let value = authorization.first else { return .failure(.missing) }
        let parts = value.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
        guard authorization.count == 1, parts.count == 2, parts[0].lowercased() == "bearer",
            parts[1].utf8.count <= Self.maximumTokenBytes
        else { return .failure(.malformed) }
        // Without a digest no caller can be identified, so all are refused; ``init(parsing:file:)`` has checked that
        // there is one.
        guard let digest = try? RunningDigest.sha256(Array(parts[1].utf8)) else { return .failure(.unknown) }
        var found: Int?
        for (index, entry) in self.entries.enumerated() where RunningDigest.areEqual(digest, entry.digest) {
            found = index
        }
        guard let found else { return .failure(.unknown) }
        return .success(self.entries[found].name)
    }

    // MARK: - Private

    private static func isName(_ name: Substring) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { byte in
                Self.isAlphanumeric(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "-")
                    || byte == UInt8(ascii: "_")
            }
    }

    /// The characters of a bearer token (RFC 6750, section 2.1), and a length that cannot be guessed.
    private static func check(token: Substring, place: String) throws(Settings.Failure) {
        guard (Self.minimumTokenBytes...Self.maximumTokenBytes).contains(token.utf8.count) else {
            throw Settings.Failure(
                "\(place): the token has \(token.utf8.count) bytes, but must have from \(Self.minimumTokenBytes) to "
                    + "\(Self.maximumTokenBytes); make one with `openssl rand -hex 32`"
            )
        }
        guard BearerTokens.isToken(token) else {
            throw Settings.Failure(
                "\(place): the token may contain only letters, digits and -._~+/=; make one with `openssl rand -hex 32`"
            )
        }
    }

    /// Whether a text has only characters of a bearer token.
    static func isToken(_ text: Substring) -> Bool {
        text.utf8.allSatisfy { Self.isAlphanumeric($0) || "-._~+/=".utf8.contains($0) }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }

    private static func digest(of token: Substring) throws(Settings.Failure) -> [UInt8] {
        do {
            return try RunningDigest.sha256(Array(token.utf8))
        } catch {
            throw Settings.Failure("\(error)")
        }
    }

    private static func digest(hex: Substring, place: String) throws(Settings.Failure) -> [UInt8] {
        let digits = Array(hex.utf8)
        let bytes = stride(from: 0, to: digits.count - 1, by: 2)
            .compactMap { UInt8(String(decoding: digits[$0...($0 + 1)], as: UTF8.self), radix: 16) }
        guard digits.count == 64, bytes.count == 32, digits.allSatisfy(Self.isAlphanumeric) else {
            throw Settings.Failure(
                "\(place): sha256: must be followed by 64 hexadecimal digits, as printed by "
                    + "`printf %s TOKEN | sha256sum`"
            )
        }
        return bytes
    }
}
