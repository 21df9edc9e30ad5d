// SPDX-License-Identifier: Apache-2.0

internal import AsyncHTTPClient
internal import Foundation
internal import NIOCore
internal import NIOHTTP1
internal import NIOSSL

/// How servers are connected to.
public struct WebClientConfiguration: Sendable, Hashable {
    /// Files fetched at once.
    public var jobs = 4
    /// A PEM file with the authorities whose certificates are taken; nil for those of the system.
    public var authorityFile: String?
    /// What this program calls itself.
    public var userAgent = "switchyard"
    /// How long a connection may take to come about.
    public var connectTimeout = Duration.seconds(20)
    /// How long a server may say nothing.
    public var silenceTimeout = Duration.seconds(60)

    /// Creates a configuration with the system's authorities.
    public init() {}
}

/// Sends requests; follows no redirects and tries nothing again, which ``FileTransfer`` decides.
final class WebClient: Sendable {
    /// The head of a response, and its body where it is wanted.
    struct Answer: Sendable {
        var head: FileTransfer.Response
        var body: HTTPClientResponse.Body
    }

    private let client: HTTPClient
    private let configuration: WebClientConfiguration

    private init(_ configuration: WebClientConfiguration) throws(FetchError) {
        var tls = TLSConfiguration.makeClientConfiguration()
        if let file = configuration.authorityFile {
            do {
                tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(file))
            } catch {
                throw FetchError(
                    .invalidArgument,
                    "\(file): cannot be read as certificates of authorities: \(error); name a PEM file with --fetch-ca or "
                        + "SSL_CERT_FILE"
                )
            }
        }
        var settings = HTTPClient.Configuration(
            tlsConfiguration: tls,
            redirectConfiguration: .disallow,
            timeout: .init(
                connect: TimeAmount(configuration.connectTimeout),
                read: TimeAmount(configuration.silenceTimeout)
            ),
            connectionPool: .init(
                idleTimeout: .seconds(30),
                concurrentHTTP1ConnectionsPerHostSoftLimit: max(1, configuration.jobs)
            )
        )
        // Several connections are several streams of bytes; one HTTP/2 connection would be one.
        settings.httpVersion = .http1Only
        settings.connectionPool.retryConnectionEstablishment = false
        self.client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
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
        try? await client.client.shutdown()
        return try result.get()
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// - Parameters:
    ///   - request: What to send.
    ///   - method: `GET` or `HEAD`.
    /// - Returns: The answer; a body that nobody reads ends its connection.
    /// - Throws: ``Failure``, or `CancellationError`.
    func send(_ request: FileTransfer.Request, method: HTTPMethod = .GET) async throws -> Answer {
        var message = HTTPClientRequest(url: request.address.url.absoluteString)
        message.method = method
        message.headers.add(name: "user-agent", value: self.configuration.userAgent)
        for header in request.headers { message.headers.add(name: header.name, value: header.value) }
        do {
            let response = try await self.client.execute(
                message,
                timeout: TimeAmount(self.configuration.silenceTimeout + self.configuration.connectTimeout)
            )
            var headers: [String: String] = [:]
            for (name, value) in response.headers where headers[name.lowercased()] == nil {
                headers[name.lowercased()] = value
            }
            return Answer(
                head: FileTransfer.Response(status: Int(response.status.code), headers: headers),
                body: response.body
            )
        } catch {
            throw try Failure(error, host: request.address.host)
        }
    }

    /// A connection that did not come about, or broke.
    struct Failure: Error {
        /// Why, for people.
        var reason: String
        /// Whether trying again could help.
        var isPassing: Bool

        /// - Throws: `CancellationError` where the task was cancelled.
        init(_ error: any Error, host: String) throws {
            try Task.checkCancellation()
            if let error = error as? HTTPClientError, error == .cancelled { throw CancellationError() }
            let text = "\(error)"
            if text.contains("CERTIFICATE_VERIFY_FAILED") || text.contains("failedToValidateHostname") {
                let isName = text.contains("failedToValidateHostname")
                self.reason =
                    "the certificate of \(host) "
                    + (isName
                        ? "is for another name; use the name that it is for"
                        : "is not signed by an authority that this machine trusts; name the authority's file with --fetch-ca "
                            + "or SSL_CERT_FILE, or install the system's (ca-certificates)")
                self.isPassing = false
                return
            }
            self.isPassing = true
            switch error {
            case let error as HTTPClientError where error == .readTimeout || error == .deadlineExceeded:
                self.reason = "no bytes came for too long"
            case let error as HTTPClientError where error == .connectTimeout:
                self.reason = "no connection to \(host) came about in time"
            case let error as HTTPClientError where error == .remoteConnectionClosed:
                self.reason = "the connection was closed"
            case _ as HTTPParserError:
                self.reason = "the answer was cut off"
            default:
                self.reason = "the connection failed (\(text.prefix(300)))"
            }
        }
    }
}
