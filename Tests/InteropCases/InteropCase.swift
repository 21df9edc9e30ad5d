// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
public import RPCTransport

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

    /// Runs the case against a server.
    ///
    /// - Parameter channel: A channel to the server; calls wait until it is ready.
    /// - Throws: ``InteropFailure`` where the server, or this client, did something else than the case says.
    public func run(on channel: RPCChannel) async throws {
        let client = InteropClient(channel: channel, name: self.rawValue)
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
