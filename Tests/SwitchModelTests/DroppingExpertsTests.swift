// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import LossyExperts
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@Suite("Experts whose answers are lost")
struct DroppingExpertsTests {
    private static let encoderLayer = SparseLayer(stack: .encoder, block: 1)
    private static let experts = 8

    /// Answers each row with its own number, so that a row in the wrong place is seen.
    private struct Numbered: ExpertExecutor {
        var dropsOwn: Range<Int> = 0..<0

        private struct Answer: PendingExperts {
            let outputs: ExpertOutputs

            func wait() -> ExpertOutputs { self.outputs }
            func cancel() {}
        }

        private struct Rows: ExpertOutputStorage {
            let values: [Float]

            func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
                self.values.withUnsafeBytes(body)
            }
        }

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            var chunks: [ExpertOutputs.Chunk] = []
            var start = 0
            // Two experts a chunk, so that a chunk holds kept and lost rows alike.
            for (index, group) in request.plan.groups.enumerated() {
                let rows = start..<(start + group.rows)
                start = rows.upperBound
                if index % 2 == 1, let last = chunks.last, !rows.overlaps(self.dropsOwn) {
                    chunks[chunks.count - 1] = Self.chunk(last.rows.lowerBound..<rows.upperBound, request)
                } else if !rows.overlaps(self.dropsOwn) {
                    chunks.append(Self.chunk(rows, request))
                }
            }
            let dropped = self.dropsOwn.isEmpty ? [] : [ExpertOutputs.Dropped(rows: self.dropsOwn, reason: .badReply)]
            return Answer(outputs: ExpertOutputs(chunks: chunks, dropped: dropped))
        }

        private static func chunk(_ rows: Range<Int>, _ request: ExpertLayerRequest) -> ExpertOutputs.Chunk {
            let width = request.hidden.columns
            return .init(
                rows: rows,
                storage: Rows(values: rows.flatMap { [Float](repeating: Float($0), count: width) })
            )
        }
    }

    /// A layer's work of many tokens, `perExpert` for each expert.
    private func request(
        perExpert: Int = 50,
        layer: SparseLayer = DroppingExpertsTests.encoderLayer
    ) -> ExpertLayerRequest {
        let count = perExpert * Self.experts
        let plan = DispatchPlan(
            choices: (0..<count).map { Int32($0 % Self.experts) },
            probabilities: [Float](repeating: 1, count: count),
            sequences: [Int32](repeating: 0, count: count),
            expertCount: Self.experts,
            policy: .unlimited,
            checkpointCapacity: 0
        )
        return ExpertLayerRequest(
            layer: layer,
            plan: plan,
            hidden: FloatMatrix(rows: count, columns: 2),
            sequences: [Int32](repeating: 0, count: count)
        )
    }

    /// The rows without an output; checks that each row is named once and carries its own number.
    private func lost(
        _ request: ExpertLayerRequest,
        _ loss: DroppingExperts.Loss,
        stacks: Set<Stack> = [.encoder, .decoder],
        seed: UInt64 = 1,
        step: Int = 0
    ) throws -> Set<Int> {
        let executor = DroppingExperts(
            Numbered(),
            loss: loss,
            expertCount: Self.experts,
            stacks: stacks,
            seed: seed,
            step: step
        )
        let outputs = try executor.execute(request)
        var named = outputs.dropped.flatMap { Array($0.rows) }
        #expect(outputs.dropped.allSatisfy { $0.reason == .timeout })
        for chunk in outputs.chunks {
            named += Array(chunk.rows)
            chunk.storage.withUnsafeBytes { bytes in
                let values = Array(bytes.bindMemory(to: Float.self))
                #expect(values == chunk.rows.flatMap { [Float($0), Float($0)] })
            }
        }
        #expect(named.sorted() == Array(0..<request.plan.rowCount), "each row exactly once")
        return Set(outputs.dropped.flatMap { Array($0.rows) })
    }

    @Test("lose the requested fraction of rows", arguments: [0, 0.001, 0.01, 0.05, 0.2, 1])
    func fraction(_ fraction: Double) throws {
        var count = 0
        for step in 0..<50 {
            count += try self.lost(self.request(), .rows(fraction: fraction), step: step).count
        }
        let total = Double(50 * 50 * Self.experts)
        // Five standard deviations of a binomial count; none where nothing or everything is lost.
        let slack = 5 * (total * fraction * (1 - fraction)).squareRoot()
        #expect(abs(Double(count) - total * fraction) <= slack)
    }

    @Test("lose the same rows for the same seed, others for another, and more for a larger fraction")
    func seeds() throws {
        let request = self.request()
        let first = try self.lost(request, .rows(fraction: 0.2), seed: 3, step: 7)
        let again = try self.lost(request, .rows(fraction: 0.2), seed: 3, step: 7)
        let other = try self.lost(request, .rows(fraction: 0.2), seed: 4, step: 7)
        let fewer = try self.lost(request, .rows(fraction: 0.05), seed: 3, step: 7)
        let later = try self.lost(request, .rows(fraction: 0.2), seed: 3, step: 8)
        let decoder = self.request(layer: SparseLayer(stack: .decoder, block: 1))
        let elsewhere = try self.lost(decoder, .rows(fraction: 0.2), seed: 3, step: 7)
        #expect(first == again)
        #expect(first != other)
        #expect(fewer.isStrictSubset(of: first))
        #expect(first != later)
        #expect(first != elsewhere)
    }

    @Test("lose nothing in a stack without faults")
    func stacks() throws {
        let encoder = self.request()
        let decoder = self.request(layer: SparseLayer(stack: .decoder, block: 1))
        #expect(try self.lost(encoder, .rows(fraction: 1), stacks: [.decoder]).isEmpty)
        #expect(try self.lost(decoder, .rows(fraction: 1), stacks: [.encoder]).isEmpty)
        #expect(try self.lost(decoder, .rows(fraction: 1), stacks: [.decoder]).count == decoder.plan.rowCount)
    }

    @Test("a late call loses all rows of a pool in one layer of one step")
    func calls() throws {
        var calls = 0
        for step in 0..<400 {
            let lost = try self.lost(self.request(perExpert: 2), .calls(fraction: 0.1, pools: 4), step: step)
            // Rows are sorted by expert: a pool of two experts has four rows that lie together.
            for pool in 0..<4 {
                let rows = Set((pool * 4)..<(pool * 4 + 4))
                let missing = rows.intersection(lost)
                #expect(missing.isEmpty || missing == rows, "step \(step), pool \(pool)")
                calls += missing.isEmpty ? 0 : 1
            }
        }
        #expect(abs(calls - 160) <= 60)
    }

    @Test("a stalled host misses consecutive steps, in every layer")
    func stalls() throws {
        let loss = DroppingExperts.Loss.stalls(fraction: 0.2, pools: 4, steps: 10)
        let layers = [Self.encoderLayer, SparseLayer(stack: .decoder, block: 3)]
        var missed = [[Bool]](repeating: [], count: 4)
        for step in 0..<1000 {
            let lost = try layers.map { try self.lost(self.request(perExpert: 1, layer: $0), loss, step: step) }
            #expect(lost[0] == lost[1])
            for pool in 0..<4 {
                missed[pool].append(lost[0].contains(pool * 2))
            }
        }
        for pool in 0..<4 {
            // Stalls begin every tenth step at most; the ones at the ends of the run may be cut.
            let changes = (1..<1000).filter { missed[pool][$0] != missed[pool][$0 - 1] }
            #expect(changes.count > 10)
            let gaps = zip(changes, changes.dropFirst()).map { $1 - $0 }
            #expect(gaps.allSatisfy { $0 % 10 == 0 }, "pool \(pool): \(gaps)")
        }
        let all = missed.joined().filter { $0 }.count
        #expect(abs(all - 800) <= 400)
    }

    @Test("a dead host's experts never answer")
    func missing() throws {
        for step in 0..<5 {
            let lost = try self.lost(self.request(perExpert: 3), .missing([2, 7]), step: step)
            #expect(lost == Set(6..<9).union(21..<24))
        }
    }

    @Test("rows that the experts drop themselves keep their reason")
    func ownDrops() throws {
        let request = self.request(perExpert: 1)
        let executor = DroppingExperts(
            Numbered(dropsOwn: 3..<4),
            loss: .rows(fraction: 1),
            expertCount: Self.experts
        )
        let outputs = try executor.execute(request)
        #expect(outputs.chunks.isEmpty)
        let reasons = outputs.dropped.flatMap { part in part.rows.map { ($0, part.reason) } }.sorted { $0.0 < $1.0 }
        #expect(reasons.map(\.0) == Array(0..<8))
        #expect(reasons.filter { $0.1 == .badReply }.map(\.0) == [3])
    }

    @Test("a model that loses nothing gives the same bits; one that loses everything counts every token")
    func model() throws {
        let tiny = try TinyModel()
        var numbers = NumberSource(seed: 31)
        let input = [numbers.tokens(30), numbers.tokens(17)]
        func run(_ experts: any ExpertExecutor) throws -> (bits: [UInt32], record: RoutingRecord) {
            var record = RoutingRecord()
            let encoded = try tiny.model.encode(input, experts: experts, record: &record)
            let rows = encoded.map { DecoderInput(cache: DecoderCache($0), tokens: [0, 5, 9]) }
            let logits = try tiny.model.decode(
                rows,
                experts: experts,
                options: StepOptions(logits: .all),
                record: &record
            )
            return (encoded.flatMap { $0.hidden.bits } + logits.bits, record)
        }
        let plain = try run(tiny.experts)
        let none = try run(DroppingExperts(tiny.experts, loss: .rows(fraction: 0), expertCount: 5))
        #expect(none.bits == plain.bits)
        #expect(none.record.droppedCount == 0)
        let all = try run(DroppingExperts(tiny.experts, loss: .rows(fraction: 1), expertCount: 5))
        #expect(all.bits != plain.bits)
        #expect(all.record.dropped(reason: .timeout) == all.record.routedCount)
        #expect(all.record.droppedCount == all.record.routedCount)
        let part = try run(DroppingExperts(tiny.experts, loss: .rows(fraction: 0.3), expertCount: 5, seed: 5))
        let samePart = try run(DroppingExperts(tiny.experts, loss: .rows(fraction: 0.3), expertCount: 5, seed: 5))
        #expect(part.record.droppedCount > 0)
        #expect(part.record.droppedCount < part.record.routedCount)
        #expect(part.bits == samePart.bits)
    }
}
