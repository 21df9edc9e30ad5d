// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import Synchronization

/// The part of a server's call that its handler reaches from any thread.
final class ServerCallShared: Sendable {
    private struct State {
        var isCancelled = false
        var isOver = false
        /// What is called when no caller waits any longer: most calls have one thing or nothing.
        var callback: (@Sendable () -> Void)?
        var furtherCallbacks: [@Sendable () -> Void] = []
        var trailing = Metadata()
        var initial = Metadata()
        var callerName: String?
        var waiter: CheckedContinuation<Void, Never>?
    }

    /// Which requests came compressed; nothing unless the server's configuration asks for it.
    let compressionLog: CompressionLog?
    private let state = Mutex(State())

    init(compressionLog: CompressionLog?) {
        self.compressionLog = compressionLog
    }

    var isCancelled: Bool { self.state.withLock { $0.isCancelled } }
    var trailing: Metadata { self.state.withLock { $0.trailing } }
    var initial: Metadata { self.state.withLock { $0.initial } }

    func setTrailing(_ metadata: Metadata) { self.state.withLock { $0.trailing = metadata } }
    func setInitial(_ metadata: Metadata) { self.state.withLock { $0.initial = metadata } }

    /// Who calls, if it has proved that; nil otherwise.
    var callerName: String? { self.state.withLock { $0.callerName } }

    func identify(as name: String) { self.state.withLock { $0.callerName = name } }

    func onCancel(_ body: @escaping @Sendable () -> Void) {
        let isCancelled = self.state.withLock { state in
            if !state.isCancelled && !state.isOver {
                if state.callback == nil { state.callback = body } else { state.furtherCallbacks.append(body) }
            }
            return state.isCancelled
        }
        if isCancelled { body() }
    }

    /// No caller waits for the answer any longer.
    func cancel() {
        let taken = self.state.withLock { state -> State? in
            guard !state.isOver else { return nil }
            state.isCancelled = true
            state.isOver = true
            let taken = state
            state.callback = nil
            state.furtherCallbacks = []
            state.waiter = nil
            return taken
        }
        guard let taken else { return }
        taken.callback?()
        for callback in taken.furtherCallbacks { callback() }
        taken.waiter?.resume()
    }

    /// The handler ended the call itself.
    func finish() {
        let waiter = self.state.withLock { state in
            state.isOver = true
            state.callback = nil
            state.furtherCallbacks = []
            let waiter = state.waiter
            state.waiter = nil
            return waiter
        }
        waiter?.resume()
    }

    /// Suspends until the call is over, however it ends.
    func waitUntilOver() async {
        await withCheckedContinuation { continuation in
            let isOver = self.state.withLock { state in
                if !state.isOver { state.waiter = continuation }
                return state.isOver
            }
            if isOver { continuation.resume() }
        }
    }
}
