// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// How to connect to servers.
///
/// Proxies are those that curl takes from the environment: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`.
public struct WebClientConfiguration: Sendable, Hashable {
    /// Files fetched at once.
    public var jobs = 4
    /// A PEM file with the trusted authorities; nil for the system's.
    public var authorityFile: String?
    /// What this program calls itself.
    public var userAgent = "switchyard"
    /// How long connecting may take.
    public var connectTimeout = Duration.seconds(20)
    /// How long a server may be silent.
    public var silenceTimeout = Duration.seconds(60)

    /// Creates a configuration with the system's authorities.
    public init() {}
}

/// Sends requests by libcurl; follows no redirects and retries nothing; ``FileTransfer`` decides that.
final class WebClient: Sendable {
    /// The head of a response, and its body if wanted.
    struct Answer: Sendable {
        var head: FileTransfer.Response
        var body: WebBody
    }

    private let loop: CurlLoop
    private let configuration: WebClientConfiguration

    private init(_ configuration: WebClientConfiguration) throws(FetchError) {
        self.loop = try CurlLoop()
        self.configuration = configuration
    }

    /// Runs a body with a client, and closes its connections afterwards.
    static func with<Result: Sendable>(
        _ configuration: WebClientConfiguration,
        _ body: (WebClient) async throws -> Result
    ) async throws -> Result {
        let client = try WebClient(configuration)
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(try await body(client))
        } catch {
            result = .failure(error)
        }
        await client.loop.stop()
        return try result.get()
    }

    /// Sends a `GET` request and waits for the head of its response.
    ///
    /// - Parameter request: What to send.
    /// - Returns: The answer; a body that is not read to its end closes its connection.
    /// - Throws: ``WebFailure``, ``FetchError`` where the configuration cannot be used, or `CancellationError`.
    func send(_ request: FileTransfer.Request) async throws -> Answer {
        let exchange = WebExchange(request, self.configuration)
        // Made first, so that the request ends with it however this function exits.
        let body = WebBody(exchange, self.loop)
        self.loop.start(exchange)
        return Answer(head: try await body.head(), body: body)
    }
}

/// The body of a response, piece by piece; the request ends with it.
final class WebBody: Sendable {
    private let exchange: WebExchange
    private let loop: CurlLoop

    init(_ exchange: WebExchange, _ loop: CurlLoop) {
        self.exchange = exchange
        self.loop = loop
    }

    deinit {
        self.loop.cancel(self.exchange)
    }

    /// The next bytes; nil at the end.
    ///
    /// - Throws: ``WebFailure``, or `CancellationError`.
    func next() async throws -> [UInt8]? {
        while true {
            try Task.checkCancellation()
            switch try self.exchange.take() {
            case .piece(let bytes, let wasPaused):
                if wasPaused { self.loop.resume(self.exchange) }
                return bytes
            case .end: return nil
            case .nothingYet: await self.wait(for: .body)
            }
        }
    }

    fileprivate func head() async throws -> FileTransfer.Response {
        while true {
            try Task.checkCancellation()
            if let head = try self.exchange.takeHead() { return head }
            await self.wait(for: .head)
        }
    }

    private func wait(for part: WebExchange.Part) async {
        await withTaskCancellationHandler {
            await self.exchange.wait(for: part)
        } onCancel: {
            self.exchange.end(.failure(CancellationError()))
            self.loop.cancel(self.exchange)
        }
    }
}

/// A connection that could not be made, or broke.
struct WebFailure: Error, Equatable {
    /// Why, for people.
    var reason: String
    /// Whether retrying could help.
    var isPassing: Bool
}
