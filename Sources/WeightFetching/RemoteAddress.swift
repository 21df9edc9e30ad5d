// SPDX-License-Identifier: Apache-2.0

public import Foundation

/// An `http` or `https` address that things are fetched from.
///
/// Its description leaves out what may be a secret: the user's name and password, and the query, which holds the
/// signature of a signed address.
public struct RemoteAddress: Sendable, Hashable, CustomStringConvertible {
    /// Longer than any address that servers take.
    private static let longestText = 8192

    /// The address without user and password.
    public let url: URL
    /// The value of an `authorization` header, from the address's user and password; nil where it has none.
    public let authorization: String?

    /// Reads an address.
    ///
    /// - Parameter text: `https://host/path`, optionally with `user:password@` and a query.
    /// - Throws: ``FetchError`` for another scheme, for a missing host and for anything that is not an address.
    public init(parsing text: String) throws(FetchError) {
        let masked = Self.masked(text)
        guard text.utf8.count <= Self.longestText, var components = URLComponents(string: text),
            let scheme = components.scheme?.lowercased(), ["http", "https"].contains(scheme),
            let host = components.host, !host.isEmpty
        else {
            throw FetchError(
                .invalidArgument,
                "\"\(masked)\" is not an address that can be fetched; give https://HOST/PATH, for an object store the "
                    + "HTTPS address of its bucket"
            )
        }
        self.authorization = components.user.map { user in
            "Basic " + Data("\(user):\(components.password ?? "")".utf8).base64EncodedString()
        }
        components.user = nil
        components.password = nil
        components.fragment = nil
        components.scheme = scheme
        guard let url = components.url else {
            throw FetchError(.invalidArgument, "\"\(masked)\" is not an address; give https://HOST/PATH")
        }
        self.url = url
    }

    private init(url: URL, authorization: String?) {
        self.url = url
        self.authorization = authorization
    }

    /// Whether a text is meant as an address rather than a folder's path.
    ///
    /// - Parameter text: The user's text.
    /// - Returns: Whether it begins with a scheme.
    public static func looksLikeAddress(_ text: String) -> Bool {
        guard let colon = text.range(of: "://") else { return false }
        return !colon.isEmpty && text[..<colon.lowerBound].allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber) }
    }

    /// Whether what travels is encrypted.
    public var isEncrypted: Bool { self.url.scheme == "https" }

    /// The name or address of the server.
    public var host: String { self.url.host() ?? "" }

    /// Scheme, host and port: the origin that a secret for this address may go to.
    var origin: String {
        let scheme = self.url.scheme ?? ""
        return "\(scheme)://\(self.host.lowercased()):\(self.url.port ?? (scheme == "https" ? 443 : 80))"
    }

    /// The address of something in the folder that this address names; the query goes along.
    ///
    /// - Parameter name: Components separated by slashes, none of them escaped.
    /// - Returns: The address.
    public func appending(_ name: String) -> RemoteAddress {
        guard var components = URLComponents(url: self.url, resolvingAgainstBaseURL: false) else { return self }
        var path = components.percentEncodedPath
        while path.hasSuffix("/") { path.removeLast() }
        for piece in name.split(separator: "/") { path += "/" + Self.escaped(String(piece)) }
        components.percentEncodedPath = path
        return RemoteAddress(url: components.url ?? self.url, authorization: self.authorization)
    }

    /// The address of one component further down, which is escaped already.
    func appendingEscaped(_ piece: String) -> RemoteAddress {
        guard var components = URLComponents(url: self.url, resolvingAgainstBaseURL: false) else { return self }
        components.percentEncodedPath += "/" + piece
        return RemoteAddress(url: components.url ?? self.url, authorization: self.authorization)
    }

    /// The same address with another query.
    func with(query: String) -> RemoteAddress {
        guard var components = URLComponents(url: self.url, resolvingAgainstBaseURL: false) else { return self }
        components.percentEncodedQuery = query
        return RemoteAddress(url: components.url ?? self.url, authorization: self.authorization)
    }

    /// A path's component, with every character escaped that has a meaning in an address, slashes too.
    static func escaped(_ piece: String) -> String {
        let plain = CharacterSet(charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
        return piece.addingPercentEncoding(withAllowedCharacters: plain) ?? piece
    }

    /// The address with secrets left out.
    public var description: String { Self.masked(self.url.absoluteString) }

    /// A text with the user, the password and the query of an address left out; any other text as it is.
    ///
    /// - Parameter text: The user's text.
    /// - Returns: The text to show.
    public static func masked(_ text: String) -> String {
        guard let scheme = text.range(of: "://") else { return text }
        var rest = text[scheme.upperBound...]
        var query = ""
        if let mark = rest.firstIndex(where: { $0 == "?" || $0 == "#" }) {
            if rest[mark] == "?" { query = "?***" }
            rest = rest[..<mark]
        }
        let authority = rest.prefix { $0 != "/" }
        var user = ""
        if let at = authority.lastIndex(of: "@") {
            user = "***@"
            rest = rest[rest.index(after: at)...]
        }
        return "\(text[..<scheme.upperBound])\(user)\(rest)\(query)"
    }
}
