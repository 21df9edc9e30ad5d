// SPDX-License-Identifier: Apache-2.0

public import Logging
internal import NIOCore
public import RPCCore
public import RPCTransport

/// Names of gRPC's interop services and methods.
public enum InteropMethods {
    /// The service that servers have.
    public static let service = "grpc.testing.TestService"
    /// An empty message each way.
    public static let emptyCall = Method(service: Self.service, name: "EmptyCall")
    /// One message each way.
    public static let unaryCall = Method(service: Self.service, name: "UnaryCall")
    /// One request, many responses.
    public static let streamingOutputCall = Method(service: Self.service, name: "StreamingOutputCall")
    /// Many requests, one response.
    public static let streamingInputCall = Method(service: Self.service, name: "StreamingInputCall")
    /// Responses to each request as it comes.
    public static let fullDuplexCall = Method(service: Self.service, name: "FullDuplexCall")
    /// Responses to all requests after the last.
    public static let halfDuplexCall = Method(service: Self.service, name: "HalfDuplexCall")
    /// A method that the service declares and no server has.
    public static let unimplementedCall = Method(service: Self.service, name: "UnimplementedCall")
    /// A method of a service that no server has.
    public static let unimplementedService = Method(
        service: "grpc.testing.UnimplementedService",
        name: "UnimplementedCall"
    )
    /// The key whose value comes back ahead of the response.
    public static let initialEcho = "x-grpc-test-echo-initial"
    /// The key whose value comes back with the status.
    public static let trailingEcho = "x-grpc-test-echo-trailing-bin"
}

/// `grpc.testing.TestService`, the server side of gRPC's interop cases.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/interop-test-descriptions.md.
public struct InteropService: Sendable {
    /// The largest message that it makes, in bytes.
    public static let largestBody: Int32 = 64 << 20

    /// Creates the service.
    public init() {}

    /// A server with the service: it compresses responses that are to be compressed, and sees which requests were.
    ///
    /// - Parameters:
    ///   - port: The port to listen on; 0 takes a free one.
    ///   - limits: What one connection may hold.
    ///   - timing: When a connection is given up.
    ///   - logger: The server's.
    /// - Returns: The server, which its `run()` starts.
    public static func server(
        port: Int = 0,
        limits: TransportLimits = .defaults,
        timing: ConnectionTiming = .defaults,
        logger: Logger
    ) -> RPCServer {
        var configuration = RPCServerConfiguration(
            port: port,
            limits: limits,
            timing: timing,
            drainGrace: .seconds(5),
            compression: .gzip(minimumBytes: 1)
        )
        configuration.recordsCompression = true
        return RPCServer(configuration: configuration, methods: InteropService().methods, logger: logger)
    }

    /// The methods, for a server.
    ///
    /// `UnimplementedCall` is not among them, which is the point of it.
    public var methods: [ServiceMethod] {
        [
            .unary(InteropMethods.emptyCall) { _, context in
                try Self.echo(context)
                return Payload(Empty().serialized)
            },
            .unary(InteropMethods.unaryCall) { message, context in
                try Self.echo(context)
                let request = try SimpleRequest(reading: message)
                try Self.check(request.responseStatus)
                try Self.checkCompression(request.expectCompressed, context)
                var response = SimpleResponse()
                response.payload = try Self.filling(request.responseSize)
                return Self.payload(response, request.responseCompressed)
            },
            .serverStreaming(InteropMethods.streamingOutputCall) { message, context, writer in
                try Self.echo(context)
                try await Self.answer(StreamingOutputCallRequest(reading: message), writer)
            },
            .clientStreaming(InteropMethods.streamingInputCall) { requests, context in
                try Self.echo(context)
                var response = StreamingInputCallResponse()
                for try await message in requests {
                    let request = try StreamingInputCallRequest(reading: message)
                    try Self.checkCompression(request.expectCompressed, context)
                    let size = Int32(clamping: request.payload?.body.readableBytes ?? 0)
                    response.aggregatedPayloadSize &+= size
                }
                return Payload(response.serialized)
            },
            .bidirectional(InteropMethods.fullDuplexCall) { requests, context, writer in
                try Self.echo(context)
                for try await message in requests {
                    try await Self.answer(StreamingOutputCallRequest(reading: message), writer)
                }
            },
            .bidirectional(InteropMethods.halfDuplexCall) { requests, context, writer in
                try Self.echo(context)
                var all: [StreamingOutputCallRequest] = []
                for try await message in requests { all.append(try StreamingOutputCallRequest(reading: message)) }
                for request in all { try await Self.answer(request, writer) }
            },
        ]
    }

    /// Sends back the two keys of metadata that callers may ask to have sent back.
    private static func echo(_ context: ServerContext) throws {
        var initial = Metadata()
        for value in context.metadata[text: InteropMethods.initialEcho] {
            try initial.add(value, forKey: InteropMethods.initialEcho)
        }
        context.setInitial(initial)
        var trailing = Metadata()
        for value in context.metadata[binary: InteropMethods.trailingEcho] {
            try trailing.add(binary: value, forKey: InteropMethods.trailingEcho)
        }
        context.setTrailing(trailing)
    }

    private static func check(_ wanted: EchoStatus?) throws(RPCError) {
        guard let wanted, wanted.code != 0 else { return }
        throw RPCError(UInt8(exactly: wanted.code).flatMap(Status.Code.init) ?? .unknown, wanted.message)
    }

    /// Compares how the next request came with how its sender says that it should have.
    private static func checkCompression(_ expected: BoolValue?, _ context: ServerContext) throws(RPCError) {
        let isCompressed = context.compressionLog?.next() ?? false
        guard let expected, expected.value != isCompressed else { return }
        let found = isCompressed ? "is compressed, and should not be" : "should be compressed, and is not"
        throw RPCError(.invalidArgument, "the request \(found)")
    }

    private static func payload(_ message: some InteropMessage, _ isCompressed: BoolValue?) -> Payload {
        var payload = Payload(message.serialized)
        payload.mayBeCompressed = isCompressed?.value ?? false
        return payload
    }

    private static func filling(_ size: Int32) throws(RPCError) -> Filling {
        guard (0...Self.largestBody).contains(size) else {
            throw RPCError(.invalidArgument, "the response size \(size) is not from 0 to \(Self.largestBody)")
        }
        return Filling(zeros: Int(size))
    }

    private static func answer(_ request: StreamingOutputCallRequest, _ writer: ResponseWriter) async throws {
        try Self.check(request.responseStatus)
        for parameters in request.responseParameters {
            if parameters.intervalMicroseconds > 0 {
                try await Task.sleep(for: .microseconds(Int64(parameters.intervalMicroseconds)))
            }
            var response = StreamingOutputCallResponse()
            response.payload = try Self.filling(parameters.size)
            try await writer.write(Self.payload(response, parameters.compressed))
        }
    }
}
