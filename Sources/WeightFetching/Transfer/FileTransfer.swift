// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Fetches one file, from what is on the disk to a file with the right checksum, as a pure machine.
///
/// It is told what happened and returns what to do next. Bytes that are on the disk are never fetched twice, unless the
/// server says that the file has changed (`If-Range`, RFC 9110 section 13.1.5), ignores ranges, or the checksum is
/// wrong in the end.
struct FileTransfer: Sendable {
    /// What to do next.
    enum Action: Sendable, Equatable {
        /// Ask for the file, and then tell ``FileTransfer/responded(_:draw:now:)``.
        case send(Request)
        /// Truncate the partial file to this size, remember the validator with it, append the body, count its bytes
        /// with ``FileTransfer/received(_:)``, and tell ``FileTransfer/bodyEnded(_:draw:)``.
        case receive(from: Int, validator: String?)
        /// Wait, for this reason, and then tell ``FileTransfer/waited()``.
        case wait(Duration, reason: String)
        /// Compare the checksum of the partial file, and tell ``FileTransfer/verified(_:)``.
        case verify
        /// Give the partial file its name; it is complete.
        case finish
        /// Give up.
        case fail(FetchError)
    }

    /// A request for the file, or for the rest of it.
    struct Request: Sendable, Equatable {
        var address: RemoteAddress
        var headers: [Header]
    }

    /// A header's name and value.
    struct Header: Sendable, Equatable {
        var name: String
        var value: String

        init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    /// The head of a response.
    struct Response: Sendable {
        var status: Int
        /// Headers by their names in lowercase; of several with one name, the first.
        var headers: [String: String]
    }

    private static let mostRedirects = 8
    /// How often a file may arrive with a wrong checksum.
    private static let mostCorruptions = 2

    /// What is fetched.
    let file: RemoteFile
    private let policy: RetryPolicy
    /// Bytes on the disk.
    private(set) var position: Int
    /// Bytes that came over the network.
    private(set) var receivedBytes = 0
    /// What the server said the bytes on the disk belong to.
    private var validator: String?
    private var redirects: RedirectChain
    private var failures = 0
    private var corruptions = 0
    private var hasProgress = false

    /// Begins with what an earlier run left.
    ///
    /// - Parameters:
    ///   - file: What is fetched.
    ///   - partialBytes: Bytes on the disk.
    ///   - validator: The validator that was remembered with them.
    ///   - policy: When to retry.
    init(_ file: RemoteFile, partialBytes: Int, validator: String?, policy: RetryPolicy) {
        self.file = file
        self.policy = policy
        self.position = partialBytes
        self.validator = validator
        self.redirects = RedirectChain(file.address, authorization: file.authorization)
    }

    /// The first thing to do.
    mutating func start() -> Action {
        if self.position > self.file.byteCount { self.startOver() }
        return self.position == self.file.byteCount ? .verify : self.request()
    }

    /// A response's head has arrived.
    ///
    /// - Parameters:
    ///   - response: The head.
    ///   - draw: A random number, at least 0 and below 1.
    ///   - now: The present.
    /// - Returns: What to do next; the body is ignored unless that is `receive`.
    mutating func responded(_ response: Response, draw: Double, now: Date) -> Action {
        switch response.status {
        case 200:
            return self.receive(from: 0, response)
        case 206:
            return self.partial(response)
        case 301, 302, 303, 307, 308:
            do throws(FetchError) {
                try self.redirects.follow(response.headers["location"], most: Self.mostRedirects, what: self.file.name)
            } catch {
                return .fail(error)
            }
            return self.request()
        case 416:
            // The server has no such range: what is here is not the beginning of its current file.
            self.startOver()
            return self.failed("the server has no bytes from there on (416)", asked: nil, draw: draw)
        case 408, 425, 429, 500, 502, 503, 504:
            let asked = response.headers["retry-after"].flatMap { RetryPolicy.askedWait($0, now: now) }
            return self.failed("the server answered \(response.status)", asked: asked, draw: draw)
        default:
            return .fail(AnswerText.failure(response, what: self.file.name, at: self.redirects.address))
        }
    }

    /// No response arrived.
    ///
    /// - Parameters:
    ///   - reason: Why, for people.
    ///   - draw: A random number, at least 0 and below 1.
    /// - Returns: What to do next.
    mutating func notAnswered(_ reason: String, draw: Double) -> Action {
        self.failed(reason, asked: nil, draw: draw)
    }

    /// Bytes of the body have been appended.
    ///
    /// - Parameter count: How many.
    /// - Throws: Where the file is larger than announced.
    mutating func received(_ count: Int) throws(FetchError) {
        guard self.position + count <= self.file.byteCount else {
            throw FetchError(
                .badAnswer,
                "\(self.file.name): \(self.redirects.address) sends more than the \(self.file.byteCount) bytes that were "
                    + "announced; try again, and see what the server has there if it happens again"
            )
        }
        self.position += count
        self.receivedBytes += count
        if count > 0 { self.hasProgress = true }
    }

    /// The body has ended.
    ///
    /// - Parameters:
    ///   - failure: Why it ended early; nil for a normal end.
    ///   - draw: A random number, at least 0 and below 1.
    /// - Returns: What to do next.
    mutating func bodyEnded(_ failure: String?, draw: Double) -> Action {
        if self.position == self.file.byteCount { return .verify }
        let reason = failure ?? "the answer ended early"
        return self.failed("\(reason) after \(self.position) of \(self.file.byteCount) bytes", asked: nil, draw: draw)
    }

    /// The wait is over.
    mutating func waited() -> Action {
        self.redirects = RedirectChain(self.file.address, authorization: self.file.authorization)
        return self.request()
    }

    /// The checksum has been compared.
    ///
    /// - Parameter found: The checksum of the partial file.
    /// - Returns: What to do next.
    mutating func verified(_ found: Checksum) -> Action {
        guard found != self.file.checksum else { return .finish }
        self.corruptions += 1
        guard self.corruptions < Self.mostCorruptions else {
            return .fail(
                FetchError(
                    .corrupt,
                    "\(self.file.name) from \(self.file.address) arrived \(self.corruptions) times with a wrong checksum: "
                        + "expected \(self.file.checksum), found \(found); nothing of it was kept. Check whether something on "
                        + "the way changes files, or name another source"
                )
            )
        }
        self.startOver()
        self.redirects = RedirectChain(self.file.address, authorization: self.file.authorization)
        return self.request()
    }

    // MARK: - Private

    private mutating func startOver() {
        self.position = 0
        self.validator = nil
    }

    private mutating func request() -> Action {
        // Bytes are counted as they are, so no encoding on the way.
        var headers = [Header("accept-encoding", "identity")]
        if let authorization = self.redirects.authorization { headers.append(Header("authorization", authorization)) }
        if self.position > 0 {
            headers.append(Header("range", "bytes=\(self.position)-"))
            if let validator = self.validator { headers.append(Header("if-range", validator)) }
        }
        self.hasProgress = false
        return .send(Request(address: self.redirects.address, headers: headers))
    }

    private mutating func receive(from start: Int, _ response: Response) -> Action {
        self.position = start
        self.validator = Self.validator(response)
        if let text = response.headers["content-length"], let length = Int(text),
            start + length != self.file.byteCount
        {
            return .fail(
                FetchError(
                    .badAnswer,
                    "\(self.file.name): \(self.redirects.address) has \(start + length) bytes, but "
                        + "\(self.file.byteCount) were announced; try again, since it may just have been replaced"
                )
            )
        }
        return .receive(from: start, validator: self.validator)
    }

    /// A part of the file: it must be the requested one, of the same file as the other bytes.
    private mutating func partial(_ response: Response) -> Action {
        let range = response.headers["content-range"].flatMap { ContentRange(parsing: $0) }
        let found = Self.validator(response)
        let isSameFile = self.validator == nil || found == nil || found == self.validator
        let isSameSize = range?.total.map { $0 == self.file.byteCount } ?? true
        guard let range, range.first == self.position, self.position > 0, isSameFile, isSameSize else {
            guard self.position > 0 else {
                return .fail(
                    FetchError(
                        .badAnswer,
                        "\(self.file.name): \(self.redirects.address) answers with part of the file where all of it was "
                            + "requested; fetch from a server that follows HTTP"
                    )
                )
            }
            // Not counted as a failure: without a range this cannot happen again.
            self.startOver()
            return self.request()
        }
        return self.receive(from: range.first, response)
    }

    /// A validator that `If-Range` may use: a strong entity tag.
    private static func validator(_ response: Response) -> String? {
        guard let tag = response.headers["etag"], tag.hasPrefix("\""), tag.hasSuffix("\""), tag.utf8.count <= 512 else {
            return nil
        }
        return tag
    }

    private mutating func failed(_ reason: String, asked: Duration?, draw: Double) -> Action {
        self.failures = self.hasProgress ? 1 : self.failures + 1
        self.hasProgress = false
        let place = "\(self.file.name) from \(self.redirects.address)"
        guard self.failures < self.policy.attempts else {
            return .fail(
                FetchError(
                    .unreachable,
                    "\(place): \(reason), \(self.failures) times in a row; what has arrived is kept, so run the same "
                        + "command again later to continue"
                )
            )
        }
        if let asked, asked > self.policy.longestAskedWait {
            return .fail(
                FetchError(
                    .unreachable,
                    "\(place): \(reason) and asks to wait \(asked.components.seconds) s; what has arrived is kept, so run "
                        + "the same command again then"
                )
            )
        }
        let wait = max(asked ?? .zero, asked == nil ? self.policy.wait(after: self.failures, draw: draw) : .zero)
        return .wait(wait, reason: "\(place): \(reason)")
    }
}

/// A `Content-Range` header: `bytes 5-9/10` (RFC 9110, section 14.4).
struct ContentRange: Sendable, Equatable {
    var first: Int
    var last: Int
    /// The size of the whole; nil where the server does not say.
    var total: Int?

    init?(parsing text: String) {
        guard text.lowercased().hasPrefix("bytes ") else { return nil }
        let sides = text.dropFirst("bytes ".count).split(separator: "/", omittingEmptySubsequences: false)
        let ends = (sides.first ?? "").split(separator: "-", omittingEmptySubsequences: false)
        guard sides.count == 2, ends.count == 2, let first = Int(ends[0]), let last = Int(ends[1]), first >= 0,
            last >= first
        else { return nil }
        self.first = first
        self.last = last
        self.total = Int(sides[1])
        guard self.total != nil || sides[1] == "*" else { return nil }
    }
}
