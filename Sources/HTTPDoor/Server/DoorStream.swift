// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization

/// A stream of an HTTP/2 connection, which has one request.
final class DoorStream: Sendable {
    /// How the wait for the end of a request ends.
    enum End: Sendable {
        /// The request is answered.
        case answered
        /// The client has left.
        case left
    }

    private struct State {
        var end: End?
        var waiter: CheckedContinuation<End, Never>?
    }

    private let state = Mutex(State())

    /// The request is over, one way or the other; the first counts.
    func ended(_ end: End) {
        let waiter = self.state.withLock { state -> CheckedContinuation<End, Never>? in
            guard state.end == nil else { return nil }
            state.end = end
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: end)
    }

    /// Waits until the request is over.
    private func waitUntilOver() async -> End {
        await withCheckedContinuation { continuation in
            let end = self.state.withLock { state in
                if state.end == nil { state.waiter = continuation }
                return state.end
            }
            if let end { continuation.resume(returning: end) }
        }
    }

    /// Runs a call as long as the client is there; then its task is cancelled.
    ///
    /// - Parameter body: The call.
    /// - Returns: What the call returns.
    /// - Throws: What the call throws.
    func attended<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
        try await withThrowingTaskGroup(of: Result.self) { group in
            group.addTask {
                defer { self.ended(.answered) }
                return try await body()
            }
            if await self.waitUntilOver() == .left { group.cancelAll() }
            guard let result = try await group.next() else { throw CancellationError() }
            return result
        }
    }
}

/// Tells the door of the stream to whose pipeline it belongs.
final class DoorStreamHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = Never

    private let connections: DoorConnections
    private let stream = DoorStream()
    private var name: ObjectIdentifier?

    init(connections: DoorConnections) { self.connections = connections }

    func handlerAdded(context: ChannelHandlerContext) {
        let name = ObjectIdentifier(context.channel)
        self.name = name
        self.connections.opened(self.stream, name)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.end()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.end() }

    private func end() {
        guard let name = self.name else { return }
        self.name = nil
        self.connections.closed(name)
        self.stream.ended(.left)
    }
}

// The handler belongs to its channel's event loop.
@available(*, unavailable)
extension DoorStreamHandler: Sendable {}
