// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import Synchronization

/// The budget that all connections of a server share for requests that no handler has taken.
///
/// Connections tell it in steps, so its lock is seldom taken and never for a call of a few bytes.
final class ReceivePool: Sendable {
    private struct State {
        var budget: SharedReceiveBudget
        /// How to make a connection end its costliest call, from any thread.
        var members: [Int: @Sendable () -> Void] = [:]
    }

    let limitBytes: Int
    /// Bytes that were dropped since free memory was last given back.
    private let droppedBytes = Atomic<Int>(0)
    private let state: Mutex<State>
    private let counts: ServerCounts

    init(limitBytes: Int, counts: ServerCounts) {
        self.limitBytes = limitBytes
        self.counts = counts
        self.state = Mutex(State(budget: SharedReceiveBudget(limitBytes: limitBytes)))
    }

    /// A connection tells what it holds; other connections, or this one, may have to end a call for it.
    ///
    /// - Parameters:
    ///   - member: The connection.
    ///   - bytes: How many bytes it holds.
    ///   - costliest: Its call that has cost most.
    ///   - now: The time in nanoseconds.
    ///   - end: Makes it end that call; called from any thread.
    func reported(
        _ member: Int,
        bytes: Int,
        costliest: HeldBytes,
        now: UInt64,
        end: @escaping @Sendable () -> Void
    ) {
        let ends = self.state.withLock { state in
            state.members[member] = bytes > 0 ? end : nil
            let named = state.budget.reported(member, bytes: bytes, costliest: costliest, now: now)
            self.counts.held(state.budget.heldBytes)
            return named.compactMap { state.members[$0] }
        }
        for end in ends { end() }
    }

    /// Bytes were dropped that no handler ever takes.
    ///
    /// The allocator keeps freed memory for each thread. Unfinished messages that move from one event loop to the next would
    /// so take the budget many times over; what handlers take is freed elsewhere and used again.
    func dropped(_ bytes: Int) {
        let sum = self.droppedBytes.wrappingAdd(bytes, ordering: .relaxed).newValue
        guard sum >= max(1 << 20, self.limitBytes / 8) else { return }
        guard self.droppedBytes.exchange(0, ordering: .relaxed) > 0 else { return }
        FreeMemory.giveBack()
    }

    /// A connection is gone.
    func left(_ member: Int) {
        self.state.withLock { state in
            state.members[member] = nil
            state.budget.forget(member)
            self.counts.held(state.budget.heldBytes)
        }
    }
}
