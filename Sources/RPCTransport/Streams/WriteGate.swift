// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import Synchronization

/// Passes messages to a call's stream and suspends the writer while too many bytes wait there.
///
/// A write hops to the event loop and returns at once as long as the bytes on their way and the bytes queued at the
/// stream stay within the limit. The stream reports when it takes a message and when its queue has drained.
final class WriteGate: Sendable {
    private struct State {
        var inFlightBytes = 0
        var queuedBytes = 0
        var closed: RPCError?
        var waiters: [CheckedContinuation<Void, any Error>] = []

        func isOpen(limit: Int) -> Bool { self.inFlightBytes + self.queuedBytes <= limit }

        mutating func takeWaiters() -> [CheckedContinuation<Void, any Error>] {
            let waiters = self.waiters
            self.waiters = []
            return waiters
        }
    }

    private let state = Mutex(State())
    private let eventLoop: any EventLoop
    private let limitBytes: Int
    /// Queues a message at the stream; called on the event loop.
    private let submit: @Sendable (Payload) -> Void

    init(eventLoop: any EventLoop, limitBytes: Int, submit: @escaping @Sendable (Payload) -> Void) {
        self.eventLoop = eventLoop
        self.limitBytes = limitBytes
        self.submit = submit
    }

    /// The queue length, in bytes, at which the stream should report that it drained.
    var drainMark: Int { self.limitBytes / 2 }

    /// Sends a message; suspends while too many bytes wait.
    ///
    /// - Throws: ``RPCError`` when the call is over or the task is cancelled.
    func write(_ payload: Payload) async throws {
        let count = payload.byteCount + 5
        let isOpen = try self.state.withLock { state throws(RPCError) in
            if let error = state.closed { throw error }
            state.inFlightBytes += count
            return state.isOpen(limit: self.limitBytes)
        }
        self.eventLoop.execute {
            self.submit(payload)
        }
        if !isOpen { try await self.waitUntilOpen() }
    }

    private func waitUntilOpen() async throws {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let outcome = self.state.withLock { state -> Result<Void, any Error>? in
                    if let error = state.closed { return .failure(error) }
                    if state.isOpen(limit: self.limitBytes) { return .success(()) }
                    if Task.isCancelled { return .failure(RPCError.taskCancelled) }
                    state.waiters.append(continuation)
                    return nil
                }
                if let outcome { continuation.resume(with: outcome) }
            }
        } onCancel: {
            for waiter in self.state.withLock({ $0.takeWaiters() }) { waiter.resume(throwing: RPCError.taskCancelled) }
        }
    }

    /// The stream took a message; `queuedBytes` wait there now.
    func submitted(byteCount: Int, queuedBytes: Int) {
        self.update { state in
            state.inFlightBytes -= byteCount
            state.queuedBytes = queuedBytes
        }
    }

    /// The stream's queue has drained to `queuedBytes`.
    func drained(queuedBytes: Int) {
        self.update { $0.queuedBytes = queuedBytes }
    }

    /// Nothing can be written any more.
    func close(_ error: RPCError) {
        let waiters = self.state.withLock { state -> [CheckedContinuation<Void, any Error>] in
            guard state.closed == nil else { return [] }
            state.closed = error
            return state.takeWaiters()
        }
        for waiter in waiters { waiter.resume(throwing: error) }
    }

    private func update(_ change: (inout State) -> Void) {
        let waiters = self.state.withLock { state -> [CheckedContinuation<Void, any Error>] in
            change(&state)
            return state.isOpen(limit: self.limitBytes) ? state.takeWaiters() : []
        }
        for waiter in waiters { waiter.resume() }
    }
}
