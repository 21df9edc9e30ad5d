// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
public import RPCCore

/// Writes the responses of a streaming call.
public struct ResponseWriter: Sendable {
    let gate: WriteGate

    /// Sends one message; suspends while the caller reads more slowly than the handler writes.
    ///
    /// - Parameter payload: The message.
    /// - Throws: ``RPCError`` with `CANCELLED` when the caller has left, the deadline has passed or the task is cancelled.
    public func write(_ payload: Payload) async throws {
        try await self.gate.write(payload)
    }
}

/// Answers a unary call whose handler runs on the event loop.
public struct UnaryResponder: Sendable {
    let eventLoop: any EventLoop
    let call: NIOLoopBound<ServerCall>

    /// Does something on the connection's event loop once the events at hand are dealt with.
    ///
    /// - Parameter body: What to do; the event loop reads and writes nothing meanwhile.
    package func afterRead(_ body: @escaping @Sendable () -> Void) { self.eventLoop.execute(body) }

    /// Ends the call; only the first answer has an effect.
    ///
    /// May be called from any thread. From another thread it hops to the connection's event loop once; answers given
    /// together leave in one write.
    ///
    /// - Parameter result: The response, or the status to end with.
    public func finish(_ result: Result<Payload, RPCError>) {
        if self.eventLoop.inEventLoop {
            self.call.value.finish(result)
        } else {
            self.eventLoop.execute { self.call.value.finish(result) }
        }
    }
}
