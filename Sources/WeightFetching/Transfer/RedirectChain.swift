// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Where a request goes after redirects, and whether the authorization still goes along.
struct RedirectChain: Sendable {
    /// Where the next request goes.
    private(set) var address: RemoteAddress
    /// The authorization to send there; dropped for good after a redirect to another origin.
    private(set) var authorization: String?
    private var count = 0

    init(_ address: RemoteAddress, authorization: String?) {
        self.address = address
        self.authorization = authorization ?? address.authorization
    }

    /// Follows one redirect.
    ///
    /// A header with a secret stays with its origin, and a request over TLS is not followed into plaintext.
    ///
    /// - Parameters:
    ///   - location: The `location` header.
    ///   - most: Redirects that are followed.
    ///   - what: What is fetched, for messages.
    /// - Throws: ``FetchError`` for a redirect that cannot be followed.
    mutating func follow(_ location: String?, most: Int, what: String) throws(FetchError) {
        self.count += 1
        guard self.count <= most else {
            throw FetchError(
                .badAnswer,
                "\(what): more than \(most) redirects, the last one at \(self.address); see what that server redirects to"
            )
        }
        guard let location, let url = URL(string: location, relativeTo: self.address.url)?.absoluteURL else {
            throw FetchError(
                .badAnswer,
                "\(what): \(self.address) redirects to \"\(RemoteAddress.masked(location ?? ""))\", which is not an address; "
                    + "fetch from another server"
            )
        }
        let target = try RemoteAddress(parsing: url.absoluteString)
        guard target.isEncrypted || !self.address.isEncrypted else {
            throw FetchError(
                .badAnswer,
                "\(what): \(self.address) redirects to \(target), which is plaintext; that is not followed. Fetch from "
                    + "another server"
            )
        }
        if target.origin != self.address.origin { self.authorization = nil }
        self.address = target
    }
}
