// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import Synchronization

/// Watches one call of the model after the other: stops a call that nobody waits for any more, and ends requests with a
/// strict drop policy at the layer that lost their tokens instead of at the end of the call.
///
/// It stands between the model and its experts. All but ``leave(_:)`` is called on the engine's thread.
final class StepWatch: ExpertExecutor, Sendable {
    private struct State {
        var book: StepBook?
        var strict: [SequenceID: @Sendable (RPCError) -> Void] = [:]
        var pending: (any PendingExperts)?
        var failures: [SequenceID: RPCError] = [:]
        var expertRows: [SparseLayer: [UInt64]] = [:]
        /// Sequences that left when no call of theirs was under way; one may be about to begin.
        var departed: Set<SequenceID> = []
        /// Whether everybody has left for good.
        var isClosed = false

        /// Begins a call, or ends the present one if there is no new one.
        mutating func begin(_ book: StepBook?, strict: [SequenceID: @Sendable (RPCError) -> Void]) {
            var book = book
            for member in book?.members ?? [] where self.isClosed || self.departed.contains(member.id) {
                _ = book?.leave(member.id)
            }
            self = State(book: book, strict: strict, departed: self.departed, isClosed: self.isClosed)
        }
    }

    /// What happened in a call, besides what the model's own record says.
    struct Outcome {
        /// Sequences that left in the middle of it.
        let left: Set<SequenceID>
        /// The errors of those among them that failed.
        let failures: [SequenceID: RPCError]
        /// Token rows that were dispatched, for each sparse layer by expert index.
        let expertRows: [SparseLayer: [UInt64]]
    }

    private let experts: any ExpertExecutor
    private let expertCount: Int
    private let state = Mutex(State())

    /// - Parameters:
    ///   - experts: Where the experts are.
    ///   - expertCount: Experts of each sparse layer.
    init(experts: any ExpertExecutor, expertCount: Int) {
        self.experts = experts
        self.expertCount = expertCount
    }

    // MARK: - A call's beginning and end

    /// A call of the model begins.
    ///
    /// - Parameters:
    ///   - book: Who has part in it.
    ///   - strict: For the sequences among them that may not lose tokens, how to tell the client that they did.
    func begin(_ book: StepBook, strict: [SequenceID: @Sendable (RPCError) -> Void]) {
        self.state.withLock { $0.begin(book, strict: strict) }
    }

    /// The call has ended.
    func end() -> Outcome {
        self.state.withLock { state in
            defer { state.begin(nil, strict: [:]) }
            return Outcome(left: state.book?.left ?? [], failures: state.failures, expertRows: state.expertRows)
        }
    }

    /// A client left; called on any thread.
    ///
    /// - Parameter id: The client's sequence.
    func leave(_ id: SequenceID) {
        let pending = self.state.withLock { state -> (any PendingExperts)? in
            switch state.book?.leave(id) {
            case .abandon:
                return state.pending
            case .goOn:
                return nil
            case .ignore, nil:
                state.departed.insert(id)
                return nil
            }
        }
        pending?.cancel()
    }

    /// Sequences that left will have part in no further call.
    func forget(_ ids: [SequenceID]) {
        self.state.withLock { $0.departed.subtract(ids) }
    }

    /// Everybody left for good; called on any thread.
    func leaveAll() {
        let pending = self.state.withLock { state in
            state.isClosed = true
            for member in state.book?.members ?? [] {
                _ = state.book?.leave(member.id)
            }
            return state.pending
        }
        pending?.cancel()
    }

    // MARK: - ExpertExecutor

    func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        let pending = self.experts.begin(request)
        let isAbandoned = self.state.withLock { state in
            state.pending = pending
            for group in request.plan.groups where group.expert < self.expertCount {
                state.expertRows[request.layer, default: Array(repeating: 0, count: self.expertCount)][group.expert] +=
                    UInt64(group.rows)
            }
            return state.book?.isAbandoned ?? false
        }
        if isAbandoned {
            pending.cancel()
        }
        return Watched(pending: pending, watch: self, request: request)
    }

    /// The layer's work, whose losses are looked at as soon as they are known.
    private struct Watched: PendingExperts {
        let pending: any PendingExperts
        let watch: StepWatch
        let request: ExpertLayerRequest

        func wait() throws -> ExpertOutputs {
            let outputs = try self.pending.wait()
            try self.watch.inspect(outputs, of: self.request)
            return outputs
        }

        func cancel() {
            self.pending.cancel()
        }
    }

    /// Ends strict requests that lost tokens; stops the call if nobody is left.
    private func inspect(_ outputs: ExpertOutputs, of request: ExpertLayerRequest) throws {
        var told: [(tell: @Sendable (RPCError) -> Void, error: RPCError)] = []
        let isAbandoned = self.state.withLock { state in
            state.pending = nil
            for dropped in outputs.dropped where dropped.reason != .capacity {
                // Rows that the plan does not have are the model's to report, which checks every row.
                for row in dropped.rows.clamped(to: 0..<request.plan.rowCount) {
                    let input = Int(request.sequences[Int(request.plan.sources[row])])
                    guard let id = state.book?.owner(ofInput: input), let tell = state.strict.removeValue(forKey: id)
                    else {
                        continue
                    }
                    let error = DropLedger.strictViolation(at: request.layer, for: dropped.reason)
                    state.failures[id] = error
                    _ = state.book?.leave(id)
                    told.append((tell, error))
                }
            }
            return state.book?.isAbandoned ?? false
        }
        for (tell, error) in told {
            tell(error)
        }
        if isAbandoned {
            throw StepInterrupted(
                layer: request.layer,
                reason: .unavailable,
                sequences: [],
                message: "nobody waits for the step any more"
            )
        }
    }
}
