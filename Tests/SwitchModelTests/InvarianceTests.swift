// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@Suite("A sequence's results")
struct InvarianceTests {
    /// What one run of encode, then decoding of given tokens one by one, gives each sequence.
    private struct Outcome: Equatable {
        var hidden: [UInt32]
        var logits: [[UInt32]] = []
    }

    private static let lengths = [3, 1, 150, 17, 64, 2, 70, 9]

    private static func inputs() -> [[Int32]] {
        var numbers = NumberSource(seed: 8)
        return self.lengths.map { numbers.tokens($0) }
    }

    private func run(
        _ tiny: TinyModel,
        inputs: [[Int32]],
        outputs: [[Int32]],
        options: StepOptions = StepOptions()
    ) throws -> [Outcome] {
        var record = RoutingRecord()
        let encoded = try tiny.model.encode(inputs, experts: tiny.experts, options: options, record: &record)
        var outcomes = encoded.map { Outcome(hidden: $0.hidden.bits) }
        let caches = encoded.map { DecoderCache($0) }
        for step in 0..<(outputs.map(\.count).max() ?? 0) {
            // Rows leave when their tokens are used up, so that the batch changes its size.
            let running = outputs.indices.filter { step < outputs[$0].count }
            let rows = running.map { DecoderInput(cache: caches[$0], tokens: [outputs[$0][step]]) }
            let logits = try tiny.model.decode(rows, experts: tiny.experts, options: options, record: &record)
            for (row, index) in running.enumerated() {
                outcomes[index].logits.append(logits.bits(rows: row..<(row + 1)))
            }
        }
        return outcomes
    }

    @Test("are the same bits alone and with seven others", arguments: [1, 3], [WeightStorage.checkpoint, .int8])
    func neighbours(threads: Int, storage: WeightStorage) throws {
        let tiny = try TinyModel(["expert_capacity": "9"], threads: threads, storage: storage)
        let inputs = Self.inputs()
        var numbers = NumberSource(seed: 9)
        let outputs = [5, 40, 3, 1, 17, 4, 8, 2].map { [0] + numbers.tokens($0) }
        let together = try self.run(tiny, inputs: inputs, outputs: outputs)
        for index in inputs.indices {
            let alone = try self.run(tiny, inputs: [inputs[index]], outputs: [outputs[index]])
            #expect(alone[0] == together[index], "sequence \(index) of \(inputs[index].count) tokens")
        }
    }

    @Test("are the same bits whatever the number of threads and the weights' storage")
    func storage() throws {
        let inputs = Self.inputs()
        let outputs: [[Int32]] = inputs.map { [0] + $0.prefix(4) }
        let expected = try self.run(TinyModel(threads: 1), inputs: inputs, outputs: outputs)
        for (threads, dtype, storage) in [
            (4, .float32, .float32), (2, .bfloat16, .checkpoint), (2, .bfloat16, .float32), (1, .float32, .bfloat16),
        ] as [(Int, DType, WeightStorage)] {
            let tiny = try TinyModel(threads: threads, dtype: dtype, storage: storage)
            #expect(try self.run(tiny, inputs: inputs, outputs: outputs) == expected, "\(threads) \(dtype) \(storage)")
        }
    }

    @Test(
        "are the same bits token by token and all at once where no capacity is hit",
        arguments: [(1, "6", .checkpoint), (2, "32", .int8), (3, "64", .int8), (5, "64", .checkpoint)]
            as [(Int, String, WeightStorage)]
    )
    func teacherForcing(threads: Int, keyWidth: String, storage: WeightStorage) throws {
        let tiny = try TinyModel(["d_kv": keyWidth], threads: threads, storage: storage)
        var numbers = NumberSource(seed: 10)
        let inputs = [numbers.tokens(12), numbers.tokens(33)]
        let outputs = [[0] + numbers.tokens(39), [0] + numbers.tokens(20)]
        let steps = try self.run(tiny, inputs: inputs, outputs: outputs)
        var record = RoutingRecord()
        let encoded = try tiny.model.encode(inputs, experts: tiny.experts, record: &record)
        let rows = zip(encoded, outputs).map { DecoderInput(cache: DecoderCache($0), tokens: $1) }
        let logits = try tiny.model.decode(
            rows,
            experts: tiny.experts,
            options: StepOptions(logits: .all),
            record: &record
        )
        #expect(logits.rows == 61)
        #expect(logits.bits(rows: 0..<40) == steps[0].logits.flatMap { $0 })
        #expect(logits.bits(rows: 40..<61) == steps[1].logits.flatMap { $0 })
        #expect(rows.map(\.cache.length) == [40, 21])
    }

    @Test("continue alike in a forked cache, and forks do not disturb each other")
    func forks() throws {
        let tiny = try TinyModel()
        var numbers = NumberSource(seed: 11)
        let input = numbers.tokens(6)
        let stem = [0] + numbers.tokens(20)
        let branches = (0..<3).map { _ in numbers.tokens(20) }
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([input], experts: tiny.experts, record: &record)[0]
        let trunk = DecoderCache(encoded)
        _ = try tiny.model.decode(
            [DecoderInput(cache: trunk, tokens: stem)],
            experts: tiny.experts,
            record: &record
        )
        let caches = [trunk, trunk.fork(), trunk.fork()]
        #expect(caches.map(\.length) == [21, 21, 21])
        var last: FloatMatrix?
        for step in 0..<20 {
            let rows = zip(caches, branches).map { DecoderInput(cache: $0, tokens: [$1[step]]) }
            last = try tiny.model.decode(rows, experts: tiny.experts, record: &record)
        }
        for (index, branch) in branches.enumerated() {
            let straight = try tiny.model.decode(
                [DecoderInput(cache: DecoderCache(encoded), tokens: stem + branch)],
                experts: tiny.experts,
                record: &record
            )
            #expect(straight.bits == last?.bits(rows: index..<(index + 1)), "branch \(index)")
        }
    }
}
