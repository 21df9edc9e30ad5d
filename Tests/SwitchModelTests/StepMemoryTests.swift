// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import SwitchModel

@Suite("Memory of steps")
struct StepMemoryTests {
    /// Local experts that keep every request as it was, and can fail.
    private final class KeepingExperts: ExpertExecutor {
        private struct Failing: PendingExperts {
            let layer: SparseLayer

            func wait() throws -> ExpertOutputs {
                throw StepInterrupted(layer: self.layer, reason: .timeout, sequences: [], message: "lost")
            }

            func cancel() {}
        }

        /// A request, and what its lists held when it came.
        private struct Kept: Sendable {
            let request: ExpertLayerRequest
            let sources: [Int32]
            let weights: [Float]
            let groups: [[Int]]
            let sequences: [Int32]
        }

        private let inner: LocalExperts
        private let failsFrom: Int
        private let kept = Mutex<[Kept]>([])

        init(_ inner: LocalExperts, failsFrom: Int = .max) {
            self.inner = inner
            self.failsFrom = failsFrom
        }

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            let count = self.kept.withLock { kept in
                kept.append(
                    Kept(
                        request: request,
                        sources: request.plan.sources.map { $0 },
                        weights: request.plan.combineWeights.map { $0 },
                        groups: request.plan.groups.map { [$0.expert, $0.rows] },
                        sequences: request.sequences.map { $0 }
                    )
                )
                return kept.count
            }
            return count > self.failsFrom ? Failing(layer: request.layer) : self.inner.begin(request)
        }

        /// Requests whose lists have changed since they came.
        var changed: Int {
            self.kept.withLock { kept in
                kept.count {
                    $0.request.plan.sources != $0.sources || $0.request.plan.combineWeights != $0.weights
                        || $0.request.plan.groups.map { [$0.expert, $0.rows] } != $0.groups
                        || $0.request.sequences != $0.sequences
                }
            }
        }

        var count: Int { self.kept.withLock { $0.count } }
    }

    /// What a call gives and counts.
    private struct Result: Equatable, Sendable {
        var logits: [UInt32]
        var routed: [Int]
        var drops: [RoutingRecord.Drop: Int]
        var choices: [[Int32]]

        init(_ logits: FloatMatrix, _ record: RoutingRecord) {
            self.logits = logits.bits
            self.routed = record.routedPerSequence
            self.drops = record.drops
            self.choices = record.layers.map(\.choices)
        }
    }

    /// A call of some rows.
    private struct Call {
        let sequences: [Int]
        let tokens: [[Int32]]
        let excluded: [Int32?]
        let options: StepOptions

        init(_ numbers: inout NumberSource, step: Int, of count: Int) {
            self.sequences = (0..<count).filter { _ in Bool.random(using: &numbers) } + [count]
            self.tokens = self.sequences.map { _ in numbers.tokens([1, 1, 1, 9][step % 4]) }
            self.excluded = self.sequences.map { $0.isMultiple(of: 2) ? Int32(1) : nil }
            self.options = StepOptions(
                collectRouting: step % 5 == 4,
                logits: [.last, .greatest, .all][step % 3],
                microBatches: [1, 1, 2, 3][step % 4]
            )
        }

        func run(
            _ model: SwitchTransformer,
            _ caches: [DecoderCache],
            _ experts: any ExpertExecutor
        ) throws -> Result {
            let rows = zip(self.sequences, zip(self.tokens, self.excluded))
                .map { DecoderInput(cache: caches[$0], tokens: $1.0, excludedToken: $1.1) }
            var record = RoutingRecord()
            let logits = try model.decode(rows, experts: experts, options: self.options, record: &record)
            return Result(logits, record)
        }
    }

    @Test("steps in the memory of other sequences' steps, and after steps that failed, are those of a fresh model")
    func sameAsFresh() throws {
        let tiny = try TinyModel(["expert_capacity": "3"])
        let checkpoint = try Checkpoint.open(tiny.directory)
        var numbers = NumberSource(seed: 41)
        let inputs = [4, 1, 30, 12, 2, 7].map { numbers.tokens($0) }
        var record = RoutingRecord()
        let encoded = try tiny.model.encode(inputs, experts: tiny.experts, record: &record)
        let (used, fresh) = (encoded.map { DecoderCache($0) }, encoded.map { DecoderCache($0) })
        let keeping = KeepingExperts(tiny.experts)
        var longest = 0
        for step in 0..<40 {
            let call = Call(&numbers, step: step, of: 5)
            if step % 6 == 5 {
                let failing = KeepingExperts(tiny.experts, failsFrom: step % 2)
                #expect(throws: StepInterrupted.self) { try call.run(tiny.model, used, failing) }
                #expect(failing.changed == 0)
            }
            // Every other step's lists are kept by its executor.
            let actual = try call.run(tiny.model, used, step.isMultiple(of: 2) ? keeping : tiny.experts)
            let model = try SwitchTransformer(checkpoint: checkpoint, pool: tiny.model.pool)
            let expected = try call.run(model, fresh, tiny.experts)
            #expect(actual == expected, "step \(step)")
            longest = max(longest, used.map(\.length).max() ?? 0)
        }
        #expect(keeping.count > 40)
        #expect(keeping.changed == 0)
        // Biases are laid out again where sequences grow.
        #expect(longest > 64)
    }

    @Test("threads that decode at the same time do not share memory")
    func threads() async throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([[5, 9, 1], [6, 1]], experts: tiny.experts, record: &record)
        @Sendable func run(_ seed: UInt64) throws -> [Result] {
            var numbers = NumberSource(seed: seed)
            let caches = (encoded + encoded).map { DecoderCache($0) }
            return try (0..<12)
                .map { step in
                    try Call(&numbers, step: step, of: 3).run(tiny.model, caches, tiny.experts)
                }
        }
        let expected = try (0..<4).map { try run(UInt64($0)) }
        try await withThrowingTaskGroup(of: (Int, [Result]).self) { group in
            for seed in 0..<4 { group.addTask { (seed, try run(UInt64(seed))) } }
            for try await (seed, results) in group { #expect(results == expected[seed], "thread \(seed)") }
        }
    }

    @Test("memory that waits for the next step keeps no cache, and no executor")
    func releases() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        weak var cache: DecoderCache?
        weak var experts: LocalExperts?
        try {
            let own = try LocalExperts(checkpoint: Checkpoint.open(tiny.directory), pool: tiny.model.pool)
            let encoded = try tiny.model.encode([[5, 1], [6, 1]], experts: own, record: &record)
            let rows = encoded.map { DecoderInput(cache: DecoderCache($0), tokens: [0]) }
            (cache, experts) = (rows[0].cache, own)
            _ = try tiny.model.decode(rows, experts: own, record: &record)
            #expect(cache != nil && experts != nil)
        }()
        #expect(cache == nil)
        #expect(experts == nil)
    }
}
