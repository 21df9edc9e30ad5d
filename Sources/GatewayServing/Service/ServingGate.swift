// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import Synchronization

/// Whether the gateway takes requests: not before its experts are ready, and not while it drains.
final class ServingGate: Sendable {
    enum Phase: Sendable {
        /// Expert hosts are still missing. Can transition to `serving` and `draining`.
        case waiting
        /// Requests are taken. Can transition to `draining`.
        case serving
        /// Requests are refused. Final.
        case draining
    }

    private struct State {
        var phase = Phase.waiting
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
        var nextWaiter = 0
    }

    private let state = Mutex(State())

    /// The gateway's state.
    var phase: Phase { self.state.withLock { $0.phase } }

    /// Takes requests from now on.
    func open() {
        self.move(to: .serving) { $0 == .waiting }
    }

    /// Refuses requests from now on.
    func close() {
        self.move(to: .draining) { _ in true }
    }

    /// Suspends until the gateway takes requests or never will, or the task is cancelled.
    func waitUntilDecided() async {
        let id = self.state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                // The handler may have run already; then nothing would resume a waiter added from here on.
                let isDecided = self.state.withLock { state in
                    let isDecided = state.phase != .waiting || Task.isCancelled
                    if !isDecided {
                        state.waiters[id] = continuation
                    }
                    return isDecided
                }
                if isDecided {
                    continuation.resume()
                }
            }
        } onCancel: {
            self.state.withLock { $0.waiters.removeValue(forKey: id) }?.resume()
        }
    }

    /// Admits a request.
    ///
    /// - Throws: ``RPCError`` with `UNAVAILABLE` if requests are not taken.
    func check() throws(RPCError) {
        switch self.state.withLock({ $0.phase }) {
        case .waiting:
            throw RPCError(.unavailable, "the gateway is still waiting for its expert hosts; try again soon")
        case .serving:
            return
        case .draining:
            throw RPCError(.unavailable, "the gateway is draining; try another one")
        }
    }

    private func move(to phase: Phase, from isAllowed: (Phase) -> Bool) {
        let waiters = self.state.withLock { state -> [CheckedContinuation<Void, Never>] in
            guard isAllowed(state.phase) else {
                return []
            }
            state.phase = phase
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters {
            waiter.resume()
        }
    }
}
