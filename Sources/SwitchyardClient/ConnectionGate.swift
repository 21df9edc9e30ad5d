// SPDX-License-Identifier: Apache-2.0

internal import RPCTransport
internal import Synchronization

/// Lets calls wait until the first attempt to connect has succeeded or failed.
///
/// Without it a call right after the start would fail, because nothing is connected yet; if calls waited for a
/// connection without limit, an address without a gateway would look like a slow one.
final class ConnectionGate: Sendable {
    private struct State {
        var isSettled = false
        var nextID = 0
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
    }

    private let state = Mutex(State())

    /// Handles a change of the channel's state.
    func changed(to channelState: RPCChannel.State) {
        let waiters = self.state.withLock { state -> [CheckedContinuation<Void, Never>] in
            switch channelState {
            case .idle, .connecting:
                state.isSettled = false
                return []
            case .ready, .transientFailure, .shutdown:
                state.isSettled = true
                defer { state.waiters.removeAll() }
                return Array(state.waiters.values)
            }
        }
        for waiter in waiters {
            waiter.resume()
        }
    }

    /// Waits until a connection is ready or an attempt has failed, at most until a point in time.
    func settled(until limit: ContinuousClock.Instant) async {
        if self.state.withLock({ $0.isSettled }) {
            return
        }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.wait() }
            group.addTask { try? await ContinuousClock().sleep(until: limit) }
            await group.next()
            group.cancelAll()
        }
    }

    /// Waits until a connection is ready or an attempt has failed, or the task is cancelled.
    private func wait() async {
        let id = self.state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let mayGo = self.state.withLock { state in
                    // An earlier cancellation found no waiter, so check for it here.
                    let mayGo = state.isSettled || Task.isCancelled
                    if !mayGo {
                        state.waiters[id] = continuation
                    }
                    return mayGo
                }
                if mayGo {
                    continuation.resume()
                }
            }
        } onCancel: {
            self.state.withLock { $0.waiters.removeValue(forKey: id) }?.resume()
        }
    }
}
