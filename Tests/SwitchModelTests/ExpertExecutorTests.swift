// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@Suite("Expert executors")
struct ExpertExecutorTests {
    /// Bytes at an odd address.
    private struct Bytes: ExpertOutputStorage {
        let bytes: [UInt8]

        func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
            self.bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0.dropFirst())) }
        }
    }

    private struct Ready: PendingExperts {
        let result: Result<ExpertOutputs, any Error>

        func wait() throws -> ExpertOutputs {
            try self.result.get()
        }

        func cancel() {}
    }

    /// Asks local experts as a host would be asked: one message an expert, answers unaligned and in the wrong order.
    private struct Scattered: ExpertExecutor {
        let experts: LocalExperts
        var missing: Set<Int> = []

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            Ready(result: Result { try self.answer(request) })
        }

        private func answer(_ request: ExpertLayerRequest) throws -> ExpertOutputs {
            var outputs = ExpertOutputs(chunks: [])
            var start = 0
            for group in request.plan.groups {
                let rows = start..<(start + group.rows)
                start = rows.upperBound
                if self.missing.contains(group.expert) {
                    outputs.dropped.append(.init(rows: rows, reason: .timeout))
                    continue
                }
                let tokens = FloatMatrix(rows: rows.count, columns: request.hidden.columns)
                request.gather(rows: rows, into: UnsafeMutableRawPointer(tokens.pointer))
                let result = FloatMatrix(rows: rows.count, columns: request.hidden.columns)
                try self.experts.forward(
                    layer: request.layer,
                    groups: [group],
                    tokens: tokens.pointer,
                    outputs: result.pointer
                )
                let count = rows.count * request.rowByteCount
                let bytes = [UInt8](UnsafeRawBufferPointer(start: result.pointer, count: count))
                outputs.chunks.insert(.init(rows: rows, storage: Bytes(bytes: [0] + bytes)), at: 0)
            }
            return outputs
        }
    }

    private struct Fixed: ExpertExecutor {
        let answer: @Sendable (ExpertLayerRequest) throws -> ExpertOutputs

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            Ready(result: Result { try self.answer(request) })
        }
    }

    private func input(_ count: Int = 50) -> [Int32] {
        var numbers = NumberSource(seed: 21)
        return numbers.tokens(count)
    }

    @Test("give the same bits for one expert at a time as for a whole layer")
    func scattered() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let expected = try tiny.model.encode([self.input()], experts: tiny.experts, record: &record)
        let actual = try tiny.model.encode([self.input()], experts: Scattered(experts: tiny.experts), record: &record)
        #expect(actual[0].hidden.bits == expected[0].hidden.bits)
        #expect(record.droppedCount == 0)
    }

    @Test("an expert's row depends on its own input alone")
    func rowByRow() throws {
        let tiny = try TinyModel()
        let layer = SparseLayer(stack: .decoder, block: 3)
        var numbers = NumberSource(seed: 22)
        let tokens = FloatMatrix(rows: 30, columns: 20)
        for index in 0..<600 {
            tokens.pointer[index] = Float.random(in: -2...2, using: &numbers)
        }
        let all = FloatMatrix(rows: 30, columns: 20)
        let groups = [ExpertRows(expert: 0, rows: 1), .init(expert: 4, rows: 13), .init(expert: 2, rows: 16)]
        try tiny.experts.forward(layer: layer, groups: groups, tokens: tokens.pointer, outputs: all.pointer)
        var row = 0
        for group in groups {
            for _ in 0..<group.rows {
                let one = FloatMatrix(rows: 1, columns: 20)
                try tiny.experts.forward(
                    layer: layer,
                    groups: [.init(expert: group.expert, rows: 1)],
                    tokens: tokens.pointer + row * 20,
                    outputs: one.pointer
                )
                #expect(one.bits == all.bits(rows: row..<(row + 1)), "row \(row)")
                row += 1
            }
        }
    }

    @Test("rows beyond one slab are computed like the others")
    func slabs() throws {
        let tiny = try TinyModel()
        let layer = SparseLayer(stack: .encoder, block: 1)
        let tokens = FloatMatrix(rows: 4200, columns: 20)
        for index in 0..<(4200 * 20) {
            tokens.pointer[index] = Float(index % 40) / 20 - 1
        }
        let outputs = FloatMatrix(rows: 4200, columns: 20)
        try tiny.experts.forward(
            layer: layer,
            groups: [.init(expert: 1, rows: 2000), .init(expert: 3, rows: 2200)],
            tokens: tokens.pointer,
            outputs: outputs.pointer
        )
        // Even rows are all alike, and so are odd ones, as long as the expert is the same.
        for row in [2, 1998, 2046, 2048, 4096, 4198] {
            let like = row < 2000 ? 0 : 2000
            #expect(outputs.bits(rows: row..<(row + 1)) == outputs.bits(rows: like..<(like + 1)), "row \(row)")
        }
        #expect(outputs.bits(rows: 0..<1) != outputs.bits(rows: 2000..<2001))
    }

    @Test("dropped rows are counted by sequence, layer and reason")
    func dropped() throws {
        let tiny = try TinyModel()
        var numbers = NumberSource(seed: 23)
        let inputs = [numbers.tokens(20), numbers.tokens(30)]
        var record = RoutingRecord()
        _ = try tiny.model.encode(
            inputs,
            experts: Scattered(experts: tiny.experts, missing: [0, 1, 2, 3, 4]),
            options: StepOptions(collectRouting: true),
            record: &record
        )
        let layer = SparseLayer(stack: .encoder, block: 1)
        #expect(record.dropped(sequence: 0, layer: layer, reason: .timeout) == 20)
        #expect(record.dropped(sequence: 1, layer: layer, reason: .timeout) == 30)
        #expect(record.droppedCount == 50)
        #expect(record.layers.first?.dropped.allSatisfy { $0 == .timeout } == true)
    }

    @Test("a layer's work is waited for once: a second wait is an error in words")
    func waitedForTwice() throws {
        let tiny = try TinyModel()
        let plan = DispatchPlan(
            choices: [1],
            probabilities: [1],
            sequences: [0],
            expertCount: 5,
            policy: .unlimited,
            checkpointCapacity: 0
        )
        let layer = SparseLayer(stack: .encoder, block: 1)
        let hidden = FloatMatrix(rows: 1, columns: 20)
        let pending = tiny.experts.begin(ExpertLayerRequest(layer: layer, plan: plan, hidden: hidden, sequences: [0]))
        #expect(try pending.wait().chunks.map(\.rows) == [0..<1])
        let error = #expect(throws: ExpertError.self) { try pending.wait() }
        #expect(error?.code == .notBegun)
    }

    @Test("local experts drop rows for experts that they do not hold, and refuse to compute them")
    func notHeld() throws {
        let tiny = try TinyModel()
        let layer = SparseLayer(stack: .encoder, block: 1)
        let checkpoint = try Checkpoint.open(tiny.directory)
        let pool = WorkPool(threads: 1)
        let some = try LocalExperts(checkpoint: checkpoint, experts: .only([layer: [1, 3]]), pool: pool)
        #expect(some.held == [layer: [1, 3]])
        #expect(some.holds(layer, expert: 3) && !some.holds(layer, expert: 0))
        #expect(tiny.experts.held.count == 3)
        var record = RoutingRecord()
        var whole = RoutingRecord()
        let options = StepOptions(collectRouting: true)
        _ = try tiny.model.encode([self.input()], experts: tiny.experts, options: options, record: &whole)
        _ = try tiny.model.encode([self.input()], experts: some, options: options, record: &record)
        let counts = try #require(whole.layers.first?.expertCounts)
        #expect(record.dropped(reason: .unavailable) == counts[0] + counts[2] + counts[4])
        let row = FloatMatrix(rows: 1, columns: 20)
        let out = FloatMatrix(rows: 1, columns: 20)
        for (groupLayer, group, code) in [
            (layer, ExpertRows(expert: 0, rows: 1), ExpertError.Code.notHeld),
            (layer, ExpertRows(expert: 1, rows: 0), .invalidGroup),
            (layer, ExpertRows(expert: 1, rows: -5), .invalidGroup),
            (SparseLayer(stack: .decoder, block: 1), ExpertRows(expert: 1, rows: 1), .unknownLayer),
        ] {
            let error = #expect(throws: ExpertError.self) {
                try some.forward(layer: groupLayer, groups: [group], tokens: row.pointer, outputs: out.pointer)
            }
            #expect(error?.code == code)
        }
    }

    @Test("outputs that do not fit the plan stop the call")
    func malformed() throws {
        let tiny = try TinyModel()
        let width = 20 * MemoryLayout<Float>.stride
        let answers: [@Sendable (Int) -> ExpertOutputs] = [
            { _ in ExpertOutputs(chunks: []) },
            { count in ExpertOutputs(chunks: [], dropped: [.init(rows: 1..<count, reason: .timeout)]) },
            { count in ExpertOutputs(chunks: [], dropped: [.init(rows: 0..<(count + 1), reason: .timeout)]) },
            { count in
                ExpertOutputs(
                    chunks: [.init(rows: 0..<1, storage: Bytes(bytes: [UInt8](repeating: 0, count: width + 1)))],
                    dropped: [.init(rows: 0..<count, reason: .timeout)]
                )
            },
            { count in
                ExpertOutputs(
                    chunks: [.init(rows: 0..<count, storage: Bytes(bytes: [UInt8](repeating: 0, count: count * width)))]
                )
            },
        ]
        for (index, answer) in answers.enumerated() {
            var record = RoutingRecord()
            let error = #expect(throws: ModelError.self, "answer \(index)") {
                try tiny.model.encode(
                    [self.input()],
                    experts: Fixed { answer($0.plan.rowCount) },
                    record: &record
                )
            }
            #expect(error?.code == .invalidExpertOutputs)
        }
    }

    @Test("a refusal to continue stops a decoder step and leaves the caches unchanged")
    func interrupted() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([self.input(5)], experts: tiny.experts, record: &record)
        let cache = DecoderCache(encoded[0])
        let strict = Fixed { request in
            throw StepInterrupted(
                layer: request.layer,
                reason: .unavailable,
                sequences: [0],
                message: "no host holds expert 1"
            )
        }
        let rows = [DecoderInput(cache: cache, tokens: [0])]
        #expect(throws: StepInterrupted.self) {
            try tiny.model.decode(rows, experts: strict, record: &record)
        }
        #expect(cache.length == 0)
        let retried = try tiny.model.decode(rows, experts: tiny.experts, record: &record)
        let fresh = try tiny.model.decode(
            [DecoderInput(cache: DecoderCache(encoded[0]), tokens: [0])],
            experts: tiny.experts,
            record: &record
        )
        #expect(retried.bits == fresh.bits)
    }
}
