// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardTypes
internal import Synchronization

/// One call of the model, watched: it stops when no client waits for it any more, and requests with a strict drop
/// policy end at the layer that lost their tokens instead of at the end of the call.
///
/// It sits between the model and its experts.
final class WatchedCall: ExpertExecutor, Sendable {
    private struct State {
        var book: StepBook
        var strict: [SequenceID: @Sendable (RPCError) -> Void]
        /// Layers in flight: one for each micro-batch.
        var pending: [Int: any PendingExperts] = [:]
        var nextPending = 0
        var expertRows: [SparseLayer: [UInt64]] = [:]
    }

    /// Results of a call that are not in the model's own record.
    struct Outcome {
        /// Sequences that left in the middle of it.
        let left: Set<SequenceID>
        /// Token rows that were dispatched, for each sparse layer by expert index.
        let expertRows: [SparseLayer: [UInt64]]
    }

    private let watch: StepWatch
    private let trace: StepTrace?
    private let state: Mutex<State>

    init(
        watch: StepWatch,
        book: StepBook,
        strict: [SequenceID: @Sendable (RPCError) -> Void],
        trace: StepTrace?
    ) {
        self.watch = watch
        self.trace = trace
        self.state = Mutex(State(book: book, strict: strict))
    }

    /// Ends the call.
    func end() -> Outcome {
        self.watch.close(self)
        return self.state.withLock { state in
            Outcome(left: state.book.left, expertRows: state.expertRows)
        }
    }

    /// Whether no client waits for the call any more.
    var isAbandoned: Bool {
        self.state.withLock { $0.book.isAbandoned }
    }

    // MARK: - Leaving, on any thread

    func leave(_ id: SequenceID) -> StepBook.OnLeave {
        self.state.withLock { $0.book.leave(id) }
    }

    func leaveAll() {
        self.state.withLock { state in
            for member in state.book.members {
                _ = state.book.leave(member.id)
            }
        }
    }

    func cancelPending() {
        for pending in self.state.withLock({ Array($0.pending.values) }) {
            pending.cancel()
        }
    }

    // MARK: - ExpertExecutor

    func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        let pending =
            if let trace = self.trace, let experts = self.watch.experts as? any TracedExperts {
                experts.begin(request, trace: trace)
            } else {
                self.watch.experts.begin(request)
            }
        let count = self.watch.expertCount
        let (key, isAbandoned) = self.state.withLock { state in
            let key = state.nextPending
            state.nextPending += 1
            state.pending[key] = pending
            for group in request.plan.groups where group.expert < count {
                state.expertRows[request.layer, default: Array(repeating: 0, count: count)][group.expert] +=
                    UInt64(group.rows)
            }
            return (key, state.book.isAbandoned)
        }
        if isAbandoned {
            pending.cancel()
        }
        return Watched(pending: pending, key: key, call: self, request: request)
    }

    /// The layer's work, whose losses are checked as soon as they are known.
    private struct Watched: PendingExperts {
        let pending: any PendingExperts
        let key: Int
        let call: WatchedCall
        let request: ExpertLayerRequest

        var isReady: Bool {
            self.pending.isReady
        }

        func wait() throws -> ExpertOutputs {
            let outputs = try self.pending.wait()
            try self.call.inspect(outputs, of: self.request, key: self.key)
            return outputs
        }

        func cancel() {
            self.pending.cancel()
        }
    }

    /// Ends strict requests that lost tokens; stops the call if none is left.
    private func inspect(_ outputs: ExpertOutputs, of request: ExpertLayerRequest, key: Int) throws {
        var told: [(tell: @Sendable (RPCError) -> Void, error: RPCError)] = []
        let isAbandoned = self.state.withLock { state in
            state.pending[key] = nil
            for dropped in outputs.dropped where dropped.reason != .capacity {
                // The model checks every row and reports rows that are not in the plan.
                for row in dropped.rows.clamped(to: 0..<request.plan.rowCount) {
                    let input = Int(request.sequences[Int(request.plan.sources[row])])
                    guard let id = state.book.owner(ofInput: input), let tell = state.strict.removeValue(forKey: id)
                    else {
                        continue
                    }
                    let error = DropLedger.strictViolation(at: request.layer, for: dropped.reason)
                    _ = state.book.leave(id)
                    told.append((tell, error))
                }
            }
            return state.book.isAbandoned
        }
        for (tell, error) in told {
            tell(error)
        }
        if isAbandoned {
            throw StepInterrupted(
                layer: request.layer,
                reason: .unavailable,
                sequences: [],
                message: "no client waits for the step any more"
            )
        }
    }
}
