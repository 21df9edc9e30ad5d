// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Fetches a small answer as a whole, with redirects and retries but without ranges, as a pure machine.
struct SmallExchange: Sendable {
    /// What to do next.
    enum Action: Sendable, Equatable {
        /// Send the changed request.
        case again
        /// Read the body.
        case take
        /// Wait, for this reason, tell ``SmallExchange/waited()`` and send the request again.
        case wait(Duration, reason: String)
        /// Give up.
        case fail(FetchError)
    }

    private static let mostRedirects = 8

    private let address: RemoteAddress
    private let authorization: String?
    private let what: String
    private let policy: RetryPolicy
    private var redirects: RedirectChain
    private var failures = 0

    init(_ address: RemoteAddress, authorization: String?, what: String, policy: RetryPolicy) {
        self.address = address
        self.authorization = authorization
        self.what = what
        self.policy = policy
        self.redirects = RedirectChain(address, authorization: authorization)
    }

    /// What to send.
    var request: FileTransfer.Request {
        var headers = [FileTransfer.Header("accept-encoding", "identity")]
        if let authorization = self.redirects.authorization {
            headers.append(FileTransfer.Header("authorization", authorization))
        }
        return FileTransfer.Request(address: self.redirects.address, headers: headers)
    }

    /// A response's head has arrived.
    mutating func responded(
        _ response: FileTransfer.Response,
        draw: Double,
        now: Date,
        explain: (FileTransfer.Response, RemoteAddress) -> FetchError?
    ) -> Action {
        switch response.status {
        case 200:
            return .take
        case 301, 302, 303, 307, 308:
            do throws(FetchError) {
                try self.redirects.follow(response.headers["location"], most: Self.mostRedirects, what: self.what)
            } catch {
                return .fail(error)
            }
            return .again
        case 408, 425, 429, 500, 502, 503, 504:
            let asked = response.headers["retry-after"].flatMap { RetryPolicy.askedWait($0, now: now) }
            return self.failed("the server answered \(response.status)", asked: asked, draw: draw)
        default:
            let place = self.redirects.address
            return .fail(explain(response, place) ?? AnswerText.failure(response, what: self.what, at: place))
        }
    }

    /// No response arrived, or not all of it.
    mutating func notAnswered(_ reason: String, draw: Double) -> Action {
        self.failed(reason, asked: nil, draw: draw)
    }

    /// The wait is over.
    mutating func waited() {
        self.redirects = RedirectChain(self.address, authorization: self.authorization)
    }

    private mutating func failed(_ reason: String, asked: Duration?, draw: Double) -> Action {
        self.failures += 1
        let place = "\(self.what) from \(self.redirects.address)"
        let wait = asked ?? self.policy.wait(after: self.failures, draw: draw)
        guard self.failures < self.policy.attempts, wait <= self.policy.longestAskedWait else {
            let wish = asked.map { ", and it asks to wait \($0.components.seconds) s" } ?? ""
            return .fail(
                FetchError(
                    .unreachable,
                    "\(place): \(reason), \(self.failures) times in a row\(wish); check that the server is up, and try "
                        + "again later"
                )
            )
        }
        return .wait(wait, reason: "\(place): \(reason)")
    }
}
