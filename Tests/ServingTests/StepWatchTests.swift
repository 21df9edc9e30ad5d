// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import GatewayServing

@Suite
struct StepWatchTests {
    /// Experts that lose chosen rows, and note whether their work was cancelled.
    private final class LossyExperts: ExpertExecutor {
        struct Work: PendingExperts {
            let owner: LossyExperts
            let lost: [Int]

            func wait() throws -> ExpertOutputs {
                ExpertOutputs(
                    chunks: [],
                    dropped: self.lost.map { .init(rows: $0..<($0 + 1), reason: .unavailable) }
                )
            }

            func cancel() {
                self.owner.cancelled.withLock { $0 += 1 }
            }
        }

        let cancelled = Mutex(0)
        let lost: [Int]

        init(lost: [Int]) {
            self.lost = lost
        }

        var cancelledCount: Int { self.cancelled.withLock { $0 } }

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            Work(owner: self, lost: self.lost)
        }
    }

    private let first = SequenceID(1)
    private let second = SequenceID(2)

    private var book: StepBook {
        StepBook(members: [.init(id: self.first, inputs: 1), .init(id: self.second, inputs: 1)])
    }

    /// Two tokens of the first sequence and one of the second; rows 0 and 2 go to expert 0, row 1 to expert 3.
    private var request: ExpertLayerRequest {
        let plan = DispatchPlan(
            choices: [0, 3, 0],
            probabilities: [1, 1, 1],
            sequences: [0, 0, 1],
            expertCount: 4,
            policy: .unlimited,
            checkpointCapacity: 64
        )
        return ExpertLayerRequest(
            layer: SparseLayer(stack: .decoder, block: 1),
            plan: plan,
            hidden: FloatMatrix(rows: 3, columns: 4),
            sequences: [0, 0, 1]
        )
    }

    @Test("A strict sequence fails at the layer that lost its tokens; the call continues for the others")
    func strict() throws {
        // Dispatched row 1 is the second sequence's token for expert 0.
        let watch = StepWatch(experts: LossyExperts(lost: [1]), expertCount: 4)
        let told = Mutex<[Status.Code]>([])
        let call = watch.open(
            self.book,
            strict: [
                self.first: { error in told.withLock { $0.append(error.code) } },
                self.second: { error in told.withLock { $0.append(error.code) } },
            ]
        )
        _ = try call.execute(self.request)
        #expect(told.withLock { $0 } == [.unavailable])
        _ = try call.execute(self.request)
        #expect(told.withLock { $0 } == [.unavailable])
        let outcome = call.end()
        #expect(outcome.left == [self.second])
        #expect(outcome.expertRows == [SparseLayer(stack: .decoder, block: 1): [4, 0, 0, 2]])
    }

    @Test("A call that has lost all its strict sequences stops")
    func allStrict() {
        let watch = StepWatch(experts: LossyExperts(lost: [0, 1, 2]), expertCount: 4)
        let call = watch.open(self.book, strict: [self.first: { _ in }, self.second: { _ in }])
        #expect(throws: StepInterrupted.self) { try call.execute(self.request) }
        #expect(call.end().left == [self.first, self.second])
    }

    @Test("The remaining sequences keep the call going; the last one to leave stops it")
    func leaving() throws {
        let experts = LossyExperts(lost: [])
        let watch = StepWatch(experts: experts, expertCount: 4)
        let call = watch.open(self.book)
        let pending = call.begin(self.request)
        watch.leave(self.first)
        #expect(experts.cancelledCount == 0)
        watch.leave(self.second)
        #expect(experts.cancelledCount == 1)
        #expect(throws: StepInterrupted.self) { try pending.wait() }
        // What begins afterwards is stopped at once.
        _ = call.begin(self.request)
        #expect(experts.cancelledCount == 2)
        #expect(call.end().left == [self.first, self.second])
    }

    @Test("A sequence that left just before the call began is not in it")
    func leavingEarly() throws {
        let experts = LossyExperts(lost: [])
        let watch = StepWatch(experts: experts, expertCount: 4)
        watch.leave(self.first)
        let early = watch.open(StepBook(members: [.init(id: self.first, inputs: 1)]))
        _ = early.begin(self.request)
        #expect(experts.cancelledCount == 1)
        #expect(early.end().left == [self.first])
        watch.forget([self.first])
        let call = watch.open(self.book)
        _ = try call.execute(self.request)
        #expect(call.end().left.isEmpty)
    }

    @Test("Once all clients have left for good, nothing waits")
    func closing() {
        let experts = LossyExperts(lost: [])
        let watch = StepWatch(experts: experts, expertCount: 4)
        watch.leaveAll()
        _ = watch.open(self.book).begin(self.request)
        #expect(experts.cancelledCount == 1)
    }

    @Test("Two calls in flight at once each lose their own clients")
    func twoCalls() throws {
        let experts = LossyExperts(lost: [])
        let watch = StepWatch(experts: experts, expertCount: 4)
        let encoding = watch.open(StepBook(members: [.init(id: self.first, inputs: 1)]))
        let decoding = watch.open(StepBook(members: [.init(id: self.second, inputs: 1)]))
        let pending = [encoding.begin(self.request), decoding.begin(self.request), decoding.begin(self.request)]
        watch.leave(self.second)
        // Both micro-batches of the second call.
        #expect(experts.cancelledCount == 2)
        #expect(decoding.isAbandoned)
        #expect(!encoding.isAbandoned)
        _ = try pending[0].wait()
        #expect(throws: StepInterrupted.self) { try pending[1].wait() }
        #expect(decoding.end().left == [self.second])
        #expect(encoding.end().left.isEmpty)
    }
}
