// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import Synchronization

/// Messages on their way from an event loop to one reader.
///
/// The reader tells when it has emptied the box; the connection credits the peer's window only then. So what waits here
/// is bounded by the window and one message.
final class MessageInbox: Sendable {
    private struct State {
        var messages: [ByteBuffer] = []
        var first = 0
        /// The bytes of the messages that wait.
        var byteCount = 0
        var end: Result<Void, RPCError>?
        var waiter: CheckedContinuation<ByteBuffer?, any Error>?

        var isEmpty: Bool { self.first == self.messages.count }

        mutating func popFirst() -> ByteBuffer? {
            guard !self.isEmpty else { return nil }
            let message = self.messages[self.first]
            self.messages[self.first] = ByteBuffer()
            self.first += 1
            self.byteCount -= message.readableBytes
            if self.isEmpty {
                self.messages.removeAll(keepingCapacity: true)
                self.first = 0
            }
            return message
        }
    }

    private let state = Mutex(State())
    /// Called from the reader's thread when it took the last message that waited.
    private let onEmptied: @Sendable () -> Void

    init(onEmptied: @escaping @Sendable () -> Void) {
        self.onEmptied = onEmptied
    }

    /// Whether no message waits.
    var isEmpty: Bool { self.state.withLock { $0.isEmpty } }

    /// The bytes of the messages that wait.
    var waitingBytes: Int { self.state.withLock { $0.byteCount } }

    /// Delivers a message.
    func push(_ message: ByteBuffer) {
        let waiter = self.state.withLock { state -> CheckedContinuation<ByteBuffer?, any Error>? in
            guard state.end == nil else { return nil }
            if let waiter = state.waiter {
                state.waiter = nil
                return waiter
            }
            state.messages.append(message)
            state.byteCount += message.readableBytes
            return nil
        }
        waiter?.resume(returning: message)
    }

    /// Ends the messages of a call that is over: those that wait are dropped, and the reader gets the error.
    func fail(_ error: RPCError) {
        let waiter = self.state.withLock { state -> CheckedContinuation<ByteBuffer?, any Error>? in
            state.messages = []
            state.first = 0
            state.byteCount = 0
            // A reader must not take a request that was cut short for a whole one.
            state.end = .failure(error)
            let waiter = state.waiter
            state.waiter = nil
            return waiter
        }
        waiter?.resume(throwing: error)
    }

    /// Says that no message follows; messages that wait are still delivered after a success, and before an error.
    func finish(_ end: Result<Void, RPCError>) {
        let waiter = self.state.withLock { state -> CheckedContinuation<ByteBuffer?, any Error>? in
            guard state.end == nil else { return nil }
            state.end = end
            let waiter = state.waiter
            state.waiter = nil
            return waiter
        }
        guard let waiter else { return }
        switch end {
        case .success: waiter.resume(returning: nil)
        case .failure(let error): waiter.resume(throwing: error)
        }
    }

    /// Takes the next message; nil at the end.
    ///
    /// - Throws: ``RPCError`` when the messages end by an error, `CANCELLED` when the task is cancelled.
    func next() async throws -> ByteBuffer? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                var emptied = false
                let outcome = self.state.withLock { state -> Result<ByteBuffer?, any Error>? in
                    if let message = state.popFirst() {
                        emptied = state.isEmpty
                        return .success(message)
                    }
                    switch state.end {
                    case .success: return .success(nil)
                    case .failure(let error): return .failure(error)
                    case nil: break
                    }
                    if Task.isCancelled { return .failure(RPCError.taskCancelled) }
                    if state.waiter != nil {
                        return .failure(RPCError(.internal, "two tasks read one stream of messages; read it from one"))
                    }
                    state.waiter = continuation
                    return nil
                }
                if let outcome { continuation.resume(with: outcome) }
                if emptied { self.onEmptied() }
            }
        } onCancel: {
            let waiter = self.state.withLock { state in
                let waiter = state.waiter
                state.waiter = nil
                return waiter
            }
            waiter?.resume(throwing: RPCError.taskCancelled)
        }
    }
}

extension RPCError {
    /// The error of something that waited in a task which was cancelled.
    static var taskCancelled: RPCError {
        RPCError(.cancelled, "the waiting task was cancelled", cause: CancellationError())
    }
}
