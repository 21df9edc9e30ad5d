// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import SwitchModel

@Suite("Micro-batches")
struct MicroBatchTests {
    /// Local experts that are not ready at the first looks, and that note in what order layers begin and are waited for.
    private final class SlowExperts: ExpertExecutor {
        private struct Work: PendingExperts {
            let owner: SlowExperts
            let key: Int
            let inner: any PendingExperts

            var isReady: Bool {
                self.owner.looks.withLock { looks in
                    looks[self.key, default: 0] += 1
                    return looks[self.key, default: 0] > self.owner.looksUntilReady
                }
            }

            func wait() throws -> ExpertOutputs {
                self.owner.events.withLock { $0.append("wait \(self.key)") }
                if self.owner.failing == self.key {
                    throw StepInterrupted(
                        layer: SparseLayer(stack: .decoder, block: 1),
                        reason: .timeout,
                        sequences: [],
                        message: "lost"
                    )
                }
                return try self.inner.wait()
            }

            func cancel() {
                self.owner.events.withLock { $0.append("cancel \(self.key)") }
            }
        }

        let inner: LocalExperts
        let looksUntilReady: Int
        let failing: Int?
        let events = Mutex<[String]>([])
        let looks = Mutex<[Int: Int]>([:])
        private let count = Mutex(0)

        init(_ inner: LocalExperts, looksUntilReady: Int = 0, failing: Int? = nil) {
            self.inner = inner
            self.looksUntilReady = looksUntilReady
            self.failing = failing
        }

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            let key = self.count.withLock { count in
                defer { count += 1 }
                return count
            }
            self.events.withLock { $0.append("begin \(key)") }
            return Work(owner: self, key: key, inner: self.inner.begin(request))
        }
    }

    private static func inputs() -> [[Int32]] {
        var numbers = NumberSource(seed: 31)
        return [3, 40, 1, 17, 64].map { numbers.tokens($0) }
    }

    /// The bits of a run through both halves of the model, and its record.
    private func run(_ tiny: TinyModel, _ options: StepOptions) throws -> (bits: [[UInt32]], record: RoutingRecord) {
        var record = RoutingRecord()
        let inputs = Self.inputs()
        let encoded = try tiny.model.encode(inputs, experts: tiny.experts, options: options, record: &record)
        let rows = zip(encoded, inputs).map { DecoderInput(cache: DecoderCache($0), tokens: [0] + $1.prefix(3)) }
        let logits = try tiny.model.decode(rows, experts: tiny.experts, options: options, record: &record)
        return (encoded.map(\.hidden.bits) + [logits.bits], record)
    }

    @Test("change no bits and no counts", arguments: [2, 3, 5, 9])
    func sameBits(count: Int) throws {
        let tiny = try TinyModel(["expert_capacity": "4"])
        let whole = try self.run(tiny, StepOptions())
        let cut = try self.run(tiny, StepOptions(microBatches: count))
        #expect(cut.bits == whole.bits)
        #expect(cut.record.routedPerSequence == whole.record.routedPerSequence)
        #expect(cut.record.drops == whole.record.drops)
        #expect(whole.record.droppedCount > 0)
        let all = try self.run(tiny, StepOptions(logits: .all))
        #expect(try self.run(tiny, StepOptions(logits: .all, microBatches: count)).bits == all.bits)
    }

    @Test("are of about equal length, and none is empty")
    func cuts() {
        let options = StepOptions(microBatches: 2)
        #expect(options.microBatches(of: [1, 1, 1, 1]) == [0..<2, 2..<4])
        #expect(options.microBatches(of: [1, 1, 1]) == [0..<2, 2..<3])
        #expect(options.microBatches(of: [90, 5, 5]) == [0..<1, 1..<3])
        #expect(options.microBatches(of: [5, 5, 90]) == [0..<2, 2..<3])
        #expect(options.microBatches(of: [7]) == [0..<1])
        #expect(options.microBatches(of: []).isEmpty)
        #expect(StepOptions(microBatches: 9).microBatches(of: [1, 1, 1]) == [0..<1, 1..<2, 2..<3])
        // Where experts' capacity or what is collected hangs on the whole batch, it stays whole.
        let factor = StepOptions(capacityPolicy: .factor(1.25), microBatches: 2)
        #expect(factor.microBatches(of: [1, 1]) == [0..<2])
        #expect(StepOptions(collectRouting: true, microBatches: 2).microBatches(of: [1, 1]) == [0..<2])
        #expect(StepOptions(collectHiddenStates: true, microBatches: 2).microBatches(of: [1, 1]) == [0..<2])
    }

    @Test("take turns: the second is in flight before the first is waited for")
    func turns() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([[5, 1], [6, 1]], experts: tiny.experts, record: &record)
        let slow = SlowExperts(tiny.experts)
        let rows = encoded.map { DecoderInput(cache: DecoderCache($0), tokens: [0]) }
        let options = StepOptions(microBatches: 2)
        _ = try tiny.model.decode(rows, experts: slow, options: options, record: &record)
        let events = slow.events.withLock { $0 }
        #expect(events.prefix(4) == ["begin 0", "begin 1", "wait 0", "begin 2"])
        #expect(events.count(where: { $0.hasPrefix("begin") }) == events.count(where: { $0.hasPrefix("wait") }))
    }

    @Test("give the time while experts are in flight to other work, and stop asking when there is none")
    func meanwhile() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([[5, 1]], experts: tiny.experts, record: &record)
        let expected = try tiny.model.decode(
            [DecoderInput(cache: DecoderCache(encoded[0]), tokens: [0])],
            experts: tiny.experts,
            record: &record
        )
        let run = try EncoderRun(tiny.model, inputs: [[9, 8, 7, 1]], experts: tiny.experts)
        var other = RoutingRecord()
        var asked = 0
        let logits = try tiny.model.decode(
            [DecoderInput(cache: DecoderCache(encoded[0]), tokens: [0])],
            experts: SlowExperts(tiny.experts, looksUntilReady: 7),
            record: &record
        ) {
            asked += 1
            guard !run.isFinished else { return false }
            // The closure cannot throw; a failure would leave the run unfinished.
            try? run.advance(record: &other)
            return true
        }
        #expect(logits.bits == expected.bits)
        #expect(asked > 0)
        while !run.isFinished {
            try run.advance(record: &other)
        }
        var direct = RoutingRecord()
        let alone = try tiny.model.encode([[9, 8, 7, 1]], experts: tiny.experts, record: &direct)
        #expect(run.result()[0].hidden.bits == alone[0].hidden.bits)
        #expect(other.routedPerSequence == direct.routedPerSequence)
    }

    @Test("leave nothing in flight when one of them fails, and change no cache")
    func failure() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([[5, 1], [6, 1]], experts: tiny.experts, record: &record)
        let failing = SlowExperts(tiny.experts, failing: 0)
        let caches = encoded.map { DecoderCache($0) }
        let options = StepOptions(microBatches: 2)
        #expect(throws: StepInterrupted.self) {
            try tiny.model.decode(
                caches.map { DecoderInput(cache: $0, tokens: [0]) },
                experts: failing,
                options: options,
                record: &record
            )
        }
        #expect(caches.map(\.length) == [0, 0])
        #expect(failing.events.withLock { $0 } == ["begin 0", "begin 1", "wait 0", "cancel 1"])
    }

    @Test("an encoder run counts its pieces down and refuses invalid inputs")
    func pieces() throws {
        let tiny = try TinyModel()
        #expect(throws: ModelError.self) { try EncoderRun(tiny.model, inputs: [], experts: tiny.experts) }
        #expect(throws: ModelError.self) { try EncoderRun(tiny.model, inputs: [[5], []], experts: tiny.experts) }
        let run = try EncoderRun(tiny.model, inputs: [[5, 6, 1], [7, 1]], experts: tiny.experts)
        var record = RoutingRecord()
        var pieces = 0
        let total = run.piecesLeft
        while !run.isFinished {
            try run.advance(record: &record)
            pieces += 1
        }
        // A sparse block that ends the encoder is finished by the piece after it.
        #expect(pieces <= total + 1)
        #expect(run.piecesLeft == 0)
        #expect(run.result().map(\.tokenCount) == [3, 2])
    }
}
