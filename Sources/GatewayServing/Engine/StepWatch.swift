// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import RPCCore
internal import SwitchModel
internal import Synchronization

/// Tracks the model's calls in flight, and which clients have left.
///
/// Calls are opened and ended on the engine's thread; clients leave on any thread.
final class StepWatch: Sendable {
    private struct State {
        var calls: [WatchedCall] = []
        /// Sequences that left while they had no call in flight; one may be about to start.
        var departed: Set<SequenceID> = []
        /// Whether all have left for good.
        var isClosed = false
    }

    let experts: any ExpertExecutor
    let expertCount: Int
    private let state = Mutex(State())

    /// - Parameters:
    ///   - experts: Where the experts are.
    ///   - expertCount: Experts of each sparse layer.
    init(experts: any ExpertExecutor, expertCount: Int) {
        self.experts = experts
        self.expertCount = expertCount
    }

    /// Starts a call of the model.
    ///
    /// - Parameters:
    ///   - book: The sequences that take part in it.
    ///   - strict: For sequences that must not lose tokens, how to end the ones that did.
    ///   - trace: What its expert calls carry; nil if none is sampled.
    /// - Returns: The call, which sits between the model and its experts.
    func open(
        _ book: StepBook,
        strict: [SequenceID: @Sendable (RPCError) -> Void] = [:],
        trace: StepTrace? = nil
    ) -> WatchedCall {
        self.state.withLock { state in
            var book = book
            for member in book.members where state.isClosed || state.departed.contains(member.id) {
                _ = book.leave(member.id)
            }
            let call = WatchedCall(watch: self, book: book, strict: strict, trace: trace)
            state.calls.append(call)
            return call
        }
    }

    /// Ends a call.
    func close(_ call: WatchedCall) {
        self.state.withLock { state in
            state.calls.removeAll { $0 === call }
        }
    }

    /// Records that a client left; callable on any thread.
    ///
    /// - Parameter id: The client's sequence.
    func leave(_ id: SequenceID) {
        let abandoned = self.state.withLock { state in
            let answers = state.calls.map { ($0, $0.leave(id)) }
            if answers.allSatisfy({ $0.1 == .ignore }) {
                state.departed.insert(id)
            }
            return answers.filter { $0.1 == .abandon }.map(\.0)
        }
        for call in abandoned {
            call.cancelPending()
        }
    }

    /// Sequences that left will take part in no further call.
    func forget(_ ids: [SequenceID]) {
        self.state.withLock { $0.departed.subtract(ids) }
    }

    /// Records that all clients have left for good; callable on any thread.
    func leaveAll() {
        let calls = self.state.withLock { state in
            state.isClosed = true
            return state.calls
        }
        for call in calls {
            call.leaveAll()
            call.cancelPending()
        }
    }
}
