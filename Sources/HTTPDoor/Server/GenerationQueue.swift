// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What happens to the generations of one request, between the tasks that run them and the one that sends it.
///
/// What has gathered is taken at once, so that a client gets it with one write.
final class GenerationQueue: Sendable {
    private struct State {
        var events: [GenerationEvent] = []
        var end: Result<Void, any Error>?
        var waiter: CheckedContinuation<Void, Never>?
    }

    private let state = Mutex(State())

    /// Adds what happened; nothing is added after the end.
    func add(_ event: GenerationEvent) {
        self.change { state in
            if state.end == nil { state.events.append(event) }
        }
    }

    /// Nothing more will happen; the first reason counts.
    ///
    /// - Parameter error: Why the generations failed; nil if they did not.
    func finish(_ error: (any Error)? = nil) {
        self.change { state in
            if state.end == nil { state.end = error.map { .failure($0) } ?? .success(()) }
        }
    }

    private func change(_ body: (inout State) -> Void) {
        let waiter = self.state.withLock { state in
            body(&state)
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }

    /// Takes what has happened since the last call, and waits if that is nothing; only one task may call it.
    ///
    /// - Returns: The events, and whether they were the last.
    /// - Throws: Why the generations failed, once all events before it were taken; `CancellationError` if the task was cancelled.
    func next() async throws -> (events: [GenerationEvent], isLast: Bool) {
        await self.wait()
        let (events, end) = self.state.withLock { state in
            defer { state.events = [] }
            return (state.events, state.end)
        }
        guard let end else { return (events, false) }
        if events.isEmpty { try end.get() }
        guard case .success = end else { return (events, false) }
        return (events, true)
    }

    private func wait() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isReady = self.state.withLock { state in
                    let isReady = !state.events.isEmpty || state.end != nil
                    if !isReady { state.waiter = continuation }
                    return isReady
                }
                if isReady { continuation.resume() }
            }
        } onCancel: {
            self.finish(CancellationError())
        }
    }
}
