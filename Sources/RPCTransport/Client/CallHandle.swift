// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import Synchronization

/// Lets the caller give up on a call.
public struct CallHandle: Sendable {
    let token: CallToken

    /// Gives up on the call: the server is told, and the call completes with `CANCELLED` unless it has ended already.
    ///
    /// May be called from any thread, any number of times.
    public func cancel() { self.token.cancel() }
}

/// The part of a client's call that is reached from any thread.
final class CallToken: Sendable {
    private struct State {
        var isCancelled = false
        var call: NIOLoopBound<ClientCall>?
    }

    let eventLoop: any EventLoop
    private let state = Mutex(State())

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    /// Ties the call to its token.
    ///
    /// Returns false when the caller has given up already.
    func attach(_ call: ClientCall) -> Bool {
        let bound = NIOLoopBound(call, eventLoop: self.eventLoop)
        return self.state.withLock { state in
            state.call = bound
            return !state.isCancelled
        }
    }

    /// Unties the call, which has ended.
    func detach() {
        self.state.withLock { $0.call = nil }
    }

    func cancel() {
        let wasCancelled = self.state.withLock { state in
            defer { state.isCancelled = true }
            return state.isCancelled
        }
        guard !wasCancelled else { return }
        self.onLoop { $0.cancel() }
    }

    /// Reaches the call from its event loop.
    func onLoopNow(_ body: (ClientCall) -> Void) {
        if let call = self.state.withLock({ $0.call }) { body(call.value) }
    }

    /// Runs on the call's event loop; does nothing when the call has ended.
    func onLoop(_ body: @escaping @Sendable (ClientCall) -> Void) {
        self.eventLoop.execute {
            if let call = self.state.withLock({ $0.call }) { body(call.value) }
        }
    }
}
