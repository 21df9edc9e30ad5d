// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import Testing

@testable import SwitchModel

@Suite("Routing")
struct RoutingTests {
    private func plan(
        _ choices: [Int32],
        sequences: [Int32]? = nil,
        policy: CapacityPolicy,
        capacity: Int = 2
    ) -> DispatchPlan {
        DispatchPlan(
            choices: choices,
            probabilities: choices.indices.map { Float($0) / 100 },
            sequences: sequences ?? [Int32](repeating: 0, count: choices.count),
            expertCount: 4,
            policy: policy,
            checkpointCapacity: capacity
        )
    }

    @Test("sorts tokens by expert and keeps their order inside an expert")
    func sorting() {
        let plan = self.plan([2, 0, 2, 3, 0, 2], policy: .unlimited)
        #expect(plan.groups == [.init(expert: 0, rows: 2), .init(expert: 2, rows: 3), .init(expert: 3, rows: 1)])
        #expect(plan.sources == [1, 4, 0, 2, 5, 3])
        #expect(plan.combineWeights == [0.01, 0.04, 0, 0.02, 0.05, 0.03])
        #expect(plan.droppedForCapacity.isEmpty)
    }

    @Test("drops the tokens that come after an expert's capacity, counted for each sequence")
    func checkpointCapacity() {
        let sequences: [Int32] = [0, 0, 0, 0, 1, 1, 1]
        let plan = self.plan([1, 1, 1, 1, 1, 1, 1], sequences: sequences, policy: .checkpoint)
        #expect(plan.groups == [.init(expert: 1, rows: 4)])
        #expect(plan.sources == [0, 1, 4, 5])
        #expect(plan.droppedForCapacity == [2, 3, 6])
    }

    @Test("counts the paper's capacity over all tokens of the step")
    func factorCapacity() {
        let sequences: [Int32] = [0, 0, 0, 1, 1, 1, 1]
        // ceil(1.1 * 7 / 4) = 2
        let plan = self.plan([1, 1, 0, 1, 2, 2, 2], sequences: sequences, policy: .factor(1.1), capacity: 1)
        #expect(plan.sources == [2, 0, 1, 4, 5])
        #expect(plan.droppedForCapacity == [3, 6])
        #expect(self.plan([1, 1, 1], policy: .factor(0)).rowCount == 0)
        for factor in [100, Double.infinity, .nan, 1e300] {
            #expect(self.plan([1, 1, 1, 1], policy: .factor(factor)).rowCount == 4)
        }
    }

    @Test("a layer's tokens all over capacity leave an empty plan")
    func nothingKept() {
        let plan = self.plan([1, 1, 3], policy: .checkpoint, capacity: 0)
        #expect(plan.groups.isEmpty && plan.rowCount == 0)
        #expect(plan.droppedForCapacity == [0, 1, 2])
    }

    @Test("dropped tokens are counted by sequence and layer, and the counts agree with the choices")
    func counting() throws {
        let tiny = try TinyModel(["expert_capacity": "4"])
        var numbers = NumberSource(seed: 3)
        let inputs = [numbers.tokens(40), numbers.tokens(5), numbers.tokens(25)]
        var record = RoutingRecord()
        _ = try tiny.model.encode(
            inputs,
            experts: tiny.experts,
            options: StepOptions(collectHiddenStates: true, collectRouting: true),
            record: &record
        )
        #expect(record.routedPerSequence == [40, 5, 25])
        #expect(record.layers.map(\.layer) == [SparseLayer(stack: .encoder, block: 1)])
        #expect(record.hiddenStates[.encoder]?.count == 4)
        let layer = try #require(record.layers.first)
        #expect(layer.expertCounts.reduce(0, +) == 70)
        var expected = [0, 0, 0]
        var start = 0
        for (sequence, input) in inputs.enumerated() {
            var seen = [Int](repeating: 0, count: 5)
            for token in start..<(start + input.count) {
                seen[Int(layer.choices[token])] += 1
                let over = seen[Int(layer.choices[token])] > 4
                expected[sequence] += over ? 1 : 0
                #expect(layer.dropped[token] == (over ? .capacity : nil))
            }
            start += input.count
        }
        #expect((0..<3).map { record.dropped(sequence: $0) } == expected)
        #expect(expected[0] > 0, "40 tokens over 5 experts of capacity 4 must drop some")
        #expect(record.dropped(reason: .capacity) == record.droppedCount)
        #expect(record.dropped(sequence: 0, layer: layer.layer, reason: .capacity) == expected[0])
        #expect(layer.probabilities.allSatisfy { $0 >= 0.2 && $0 <= 1 })
    }

    @Test("a dropped token keeps its residual and nothing else changes")
    func droppedResidual() throws {
        // One sparse encoder block that is the last one: the state before it and after it can be compared.
        let changes = ["num_layers": "2", "expert_capacity": "3"]
        let tiny = try TinyModel(changes)
        var numbers = NumberSource(seed: 4)
        let input = numbers.tokens(30)
        func states(_ policy: CapacityPolicy) throws -> (RoutingRecord, [[UInt32]]) {
            var record = RoutingRecord()
            _ = try tiny.model.encode(
                [input],
                experts: tiny.experts,
                options: StepOptions(capacityPolicy: policy, collectHiddenStates: true, collectRouting: true),
                record: &record
            )
            let last = try #require(record.hiddenStates[.encoder]?.last)
            return (record, (0..<30).map { last.bits(rows: $0..<($0 + 1)) })
        }
        let (limited, limitedRows) = try states(.checkpoint)
        let (unlimited, unlimitedRows) = try states(.unlimited)
        #expect(unlimited.droppedCount == 0)
        let dropped = try #require(limited.layers.first?.dropped)
        for token in 0..<30 {
            #expect((limitedRows[token] == unlimitedRows[token]) == (dropped[token] == nil), "token \(token)")
        }
    }
}

@Suite("Given drops")
struct GivenDropTests {
    @Test("a row that a host lost keeps its place in the capacity, and one over it counts as over capacity")
    func places() {
        let given: [GivenRoute?] = [
            GivenRoute(expert: nil, reason: .timeout), nil, nil, GivenRoute(expert: nil, reason: .capacity),
        ]
        var plan = DispatchPlan()
        var counts: [Int] = []
        plan.sort(
            [0, 0, 0, 1],
            probabilities: [0.5, 0.6, 0.7, 0.8],
            sequences: [0, 0, 0, 0],
            given: given,
            expertCount: 2,
            limit: (tokens: 2, perSequence: true),
            order: .tokens,
            layer: 0,
            counts: &counts
        )
        // The lost row is the first of two that the expert takes, so the third is over its capacity.
        #expect(plan.sources == [1])
        #expect(plan.droppedForCapacity == [2])
        #expect(plan.overCapacity == [2, 3])
        #expect(plan.droppedAsGiven.map(\.row) == [0, 3])
    }
}
