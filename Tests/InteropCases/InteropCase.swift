// SPDX-License-Identifier: Apache-2.0

package import Logging
internal import NIOCore
internal import RPCCore
package import RPCTransport

/// A case of gRPC's interop suite, by the name that all its clients give it.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/interop-test-descriptions.md. The cases that need an account with
/// someone are not here.
public enum InteropCase: String, CaseIterable, Sendable {
    case emptyUnary = "empty_unary"
    case largeUnary = "large_unary"
    case clientStreaming = "client_streaming"
    case serverStreaming = "server_streaming"
    case pingPong = "ping_pong"
    case emptyStream = "empty_stream"
    case cancelAfterBegin = "cancel_after_begin"
    case cancelAfterFirstResponse = "cancel_after_first_response"
    case timeoutOnSleepingServer = "timeout_on_sleeping_server"
    case customMetadata = "custom_metadata"
    case statusCodeAndMessage = "status_code_and_message"
    case specialStatusMessage = "special_status_message"
    case unimplementedMethod = "unimplemented_method"
    case unimplementedService = "unimplemented_service"
    case clientCompressedUnary = "client_compressed_unary"
    case serverCompressedUnary = "server_compressed_unary"
    case clientCompressedStreaming = "client_compressed_streaming"
    case serverCompressedStreaming = "server_compressed_streaming"

    /// Whether the server must tell compressed requests from others, which not every gRPC library lets it do.
    public var needsServerThatSeesCompression: Bool {
        self == .clientCompressedUnary || self == .clientCompressedStreaming
    }

    /// A channel for the cases: it compresses requests that are to be compressed, and sees which responses were.
    ///
    /// - Parameters:
    ///   - host: The server's host.
    ///   - port: The server's port.
    ///   - logger: The channel's.
    /// - Returns: The channel, which its `run()` connects, and what to pass to ``run(on:log:)``.
    package static func channel(
        host: String = "127.0.0.1",
        port: Int,
        logger: Logger
    ) -> (channel: RPCChannel, log: CompressionLog) {
        let log = CompressionLog()
        var configuration = RPCChannelConfiguration(
            reconnect: ReconnectPolicy(initial: .milliseconds(20)),
            compression: .gzip(minimumBytes: 1)
        )
        configuration.compressionLog = log
        return (RPCChannel(target: (host, port), configuration: configuration, logger: logger), log)
    }

    /// Runs the case against a server.
    ///
    /// - Parameters:
    ///   - channel: A channel to the server; calls wait until it is ready.
    ///   - log: The log of the channel's responses.
    /// - Throws: ``InteropFailure`` where the server, or this client, did something else than the case says.
    package func run(on channel: RPCChannel, log: CompressionLog) async throws {
        while log.next() != nil {}
        let client = InteropClient(channel: channel, log: log, name: self.rawValue)
        switch self {
        case .emptyUnary: try await client.emptyUnary()
        case .largeUnary: try await client.largeUnary()
        case .clientStreaming: try await client.clientStreaming()
        case .serverStreaming: try await client.serverStreaming()
        case .pingPong: try await client.pingPong()
        case .emptyStream: try await client.emptyStream()
        case .cancelAfterBegin: try await client.cancelAfterBegin()
        case .cancelAfterFirstResponse: try await client.cancelAfterFirstResponse()
        case .timeoutOnSleepingServer: try await client.timeoutOnSleepingServer()
        case .customMetadata: try await client.customMetadata()
        case .statusCodeAndMessage: try await client.status(EchoStatus(2, "test status message"), streams: true)
        case .specialStatusMessage: try await client.status(EchoStatus(2, Self.specialMessage), streams: false)
        case .unimplementedMethod: try await client.unimplemented(InteropMethods.unimplementedCall)
        case .unimplementedService: try await client.unimplemented(InteropMethods.unimplementedService)
        case .clientCompressedUnary: try await client.clientCompressedUnary()
        case .serverCompressedUnary: try await client.serverCompressedUnary()
        case .clientCompressedStreaming: try await client.clientCompressedStreaming()
        case .serverCompressedStreaming: try await client.serverCompressedStreaming()
        }
    }

    /// White space at both ends and letters inside and outside of Unicode's first plane.
    static let specialMessage = "\t\ntest with whitespace\r\nand Unicode BMP \u{263A} and non-BMP \u{1F608}\t\n"
}

/// What went otherwise than a case says.
public struct InteropFailure: Error, CustomStringConvertible {
    /// The case and what went otherwise.
    public var description: String
}
