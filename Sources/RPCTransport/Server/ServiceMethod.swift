// SPDX-License-Identifier: Apache-2.0

public import NIOCore
public import RPCCore

/// A method and what answers it.
public struct ServiceMethod: Sendable {
    enum Handler: Sendable {
        case eventLoop(@Sendable (ByteBuffer, ServerContext, UnaryResponder) -> Void)
        case unary(@Sendable (ByteBuffer, ServerContext) async throws -> Payload)
        case serverStreaming(@Sendable (ByteBuffer, ServerContext, ResponseWriter) async throws -> Void)
        case clientStreaming(@Sendable (RequestStream, ServerContext) async throws -> Payload)
        case bidirectional(@Sendable (RequestStream, ServerContext, ResponseWriter) async throws -> Void)
    }

    /// The method.
    public let method: Method
    /// How many messages each side sends.
    public let shape: CallShape
    /// The largest request message in bytes, decompressed; nil takes what the server's limits allow.
    public private(set) var maxRequestBytes: Int?
    let handler: Handler

    private init(method: Method, shape: CallShape, handler: Handler) {
        self.method = method
        self.shape = shape
        self.handler = handler
    }

    /// The method with a limit for its requests, where they are smaller than what the server's limits allow.
    ///
    /// A larger message is refused with `RESOURCE_EXHAUSTED` once its length is known, before any byte of it is kept.
    ///
    /// - Parameter bytes: The largest request message in bytes, decompressed.
    /// - Returns: The method with that limit.
    public func requests(upTo bytes: Int) -> ServiceMethod {
        var limited = self
        limited.maxRequestBytes = max(0, bytes)
        return limited
    }

    /// A method with one message each way, answered by a task.
    ///
    /// The task is cancelled when the caller leaves or the deadline passes. Whatever is thrown becomes the status: an
    /// ``RPCError`` its own, everything else `UNKNOWN`.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - handler: Gets the request's bytes and returns the response's.
    /// - Returns: The method with its handler.
    public static func unary(
        _ method: Method,
        _ handler: @escaping @Sendable (ByteBuffer, ServerContext) async throws -> Payload
    ) -> ServiceMethod {
        ServiceMethod(method: method, shape: .unary, handler: .unary(handler))
    }

    /// A method with one message each way, answered from the event loop without a change of thread.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - handler: Called on the connection's event loop, which it must not block. It answers through the responder,
    ///     then or later, from any thread.
    /// - Returns: The method with its handler.
    public static func unaryOnEventLoop(
        _ method: Method,
        _ handler: @escaping @Sendable (ByteBuffer, ServerContext, UnaryResponder) -> Void
    ) -> ServiceMethod {
        ServiceMethod(method: method, shape: .unary, handler: .eventLoop(handler))
    }

    /// A method that answers one message with any number of them.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - handler: Gets the request's bytes and writes responses; the call ends with `OK` when it returns.
    /// - Returns: The method with its handler.
    public static func serverStreaming(
        _ method: Method,
        _ handler: @escaping @Sendable (ByteBuffer, ServerContext, ResponseWriter) async throws -> Void
    ) -> ServiceMethod {
        ServiceMethod(method: method, shape: .serverStreaming, handler: .serverStreaming(handler))
    }

    /// A method that answers any number of messages with one.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - handler: Reads the requests and returns the response's bytes.
    /// - Returns: The method with its handler.
    public static func clientStreaming(
        _ method: Method,
        _ handler: @escaping @Sendable (RequestStream, ServerContext) async throws -> Payload
    ) -> ServiceMethod {
        ServiceMethod(method: method, shape: .clientStreaming, handler: .clientStreaming(handler))
    }

    /// A method with any number of messages both ways.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - handler: Reads requests and writes responses; the call ends with `OK` when it returns.
    /// - Returns: The method with its handler.
    public static func bidirectional(
        _ method: Method,
        _ handler: @escaping @Sendable (RequestStream, ServerContext, ResponseWriter) async throws -> Void
    ) -> ServiceMethod {
        ServiceMethod(method: method, shape: .bidirectional, handler: .bidirectional(handler))
    }
}
