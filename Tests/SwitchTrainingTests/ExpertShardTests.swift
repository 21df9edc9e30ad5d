// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Shards of experts that are trained elsewhere")
struct ExpertShardTests {
    /// Experts in shards of this process, as hosts hold them.
    final class Shards: LearningExperts {
        let run = UInt64(1)
        let adapter: LowRankSettings?
        /// What a step's experts do wrong, by attempt.
        let voids = Mutex(0)
        private let shards: Mutex<[ExpertShard]>
        private let step = Mutex(0)
        private let configuration: ModelConfiguration
        /// The checkpoint below an adapter.
        private let base: Checkpoint?

        init(
            _ configuration: ModelConfiguration,
            _ plans: [ShardPlan],
            threads: Int,
            level: KernelLevel,
            base: Checkpoint? = nil
        ) throws {
            self.configuration = configuration
            self.adapter = plans.first?.adapter?.settings
            self.base = base
            self.shards = Mutex(
                try plans.map { plan in
                    let shard = try ExpertShard(
                        configuration,
                        plan: plan,
                        pool: WorkPool(threads: threads),
                        level: level
                    )
                    try Self.bring(base, to: shard)
                    return shard
                }
            )
        }

        /// Brings the weights below an adapter, in pieces whose borders are within tensors.
        private static func bring(_ checkpoint: Checkpoint?, to shard: ExpertShard) throws {
            guard let checkpoint else { return }
            let base = try ShardBase(checkpoint, plan: shard.plan)
            #expect(shard.needsBase && base.byteCount == shard.baseByteCount)
            for start in stride(from: 0, to: base.byteCount, by: 4 * 4099) {
                shard.putBase(try base.piece(at: start, upTo: 4 * 4099), at: start)
            }
            try shard.completeBase(checksum: base.checksum)
            #expect(!shard.needsBase && shard.hasSoundWeights())
        }

        func begin(step: Int) {
            self.step.withLock { $0 = step }
            self.shards.withLock { shards in for shard in shards { shard.beginStep() } }
        }

        /// Runs a body on each shard's part of the rows, and puts the answers together.
        private func each(
            _ layer: SparseLayer,
            _ groups: [ExpertRows],
            _ matrices: [FloatMatrix],
            _ places: [RowPlace]?,
            _ body: (ExpertShard, ExpertShard.Batch, [FloatMatrix], Int) throws -> FloatMatrix?
        ) throws -> FloatMatrix {
            let results = FloatMatrix(rows: matrices[0].rows, columns: matrices[0].columns)
            let step = self.step.withLock { $0 }
            try self.shards.withLock { shards in
                for shard in shards {
                    let held = Set(shard.plan.held.first { $0.layer == layer }?.experts ?? [])
                    var (rows, kept, next): ([Int], [ExpertRows], Int) = ([], [], 0)
                    for group in groups {
                        if held.contains(group.expert) {
                            kept.append(group)
                            rows += next..<next + group.rows
                        }
                        next += group.rows
                    }
                    guard !rows.isEmpty else { continue }
                    let picked = matrices.map { matrix in
                        let picked = FloatMatrix(rows: rows.count, columns: matrix.columns)
                        for (index, row) in rows.enumerated() { _ = picked.row(index).update(from: matrix.row(row)) }
                        return picked
                    }
                    let batch = ExpertShard.Batch(
                        layer,
                        groups: kept,
                        tokens: picked[0],
                        places: places.map { places in rows.map { places[$0] } }
                    )
                    try shard.check(batch)
                    guard let answer = try body(shard, batch, picked, step) else { continue }
                    for (index, row) in rows.enumerated() { _ = results.row(row).update(from: answer.row(index)) }
                }
            }
            return results
        }

        func forward(
            _ layer: SparseLayer,
            groups: [ExpertRows],
            tokens: FloatMatrix,
            places: [RowPlace]?
        ) throws -> FloatMatrix {
            try self.each(layer, groups, [tokens], places) { shard, batch, _, step in shard.forward(batch, step: step) }
        }

        func backward(
            _ layer: SparseLayer,
            groups: [ExpertRows],
            tokens: FloatMatrix,
            outputGradients: FloatMatrix,
            places: [RowPlace]
        ) throws -> FloatMatrix {
            try self.each(layer, groups, [tokens, outputGradients], places) { shard, batch, picked, step in
                // A call that comes again is answered again, and does not count.
                let answer = shard.backward(
                    batch,
                    outputGradients: picked[1],
                    step: step,
                    accumulates: true,
                    answers: true
                )
                let again = shard.backward(
                    batch,
                    outputGradients: picked[1],
                    step: step,
                    accumulates: false,
                    answers: true
                )
                let count = (answer?.rows ?? 0) * (answer?.columns ?? 0) * 4
                if let answer, let again { #expect(memcmp(answer.pointer, again.pointer, count) == 0) }
                return answer
            }
        }

        func squares() throws -> [String: Double] {
            let isVoid = self.voids.withLock { voids in
                defer { voids = max(0, voids - 1) }
                return voids > 0
            }
            if isVoid { throw VoidStep("a bit flipped") }
            return self.shards.withLock { shards in
                var squares: [String: Double] = [:]
                for shard in shards {
                    for (entry, square) in zip(shard.layout.entries, shard.squares()) { squares[entry.name] = square }
                }
                return squares
            }
        }

        func apply(rate: Double, scale: Double) {
            self.shards.withLock { shards in for shard in shards { shard.apply(rate: rate, scale: scale) } }
        }

        func load(_ weights: ParameterBuffer, state: [String: TensorView], steps: [String: Int], step: Int) throws {
            try self.shards.withLock { shards in
                for shard in shards { try shard.take(from: weights, state: state, steps: steps) }
            }
        }

        /// Puts other shards in place that took over the state, as when all hosts die.
        func replace() throws {
            try self.shards.withLock { shards in
                shards = try shards.map { old in
                    let new = try ExpertShard(self.configuration, plan: old.plan, pool: WorkPool(threads: 1))
                    try Self.bring(self.base, to: new)
                    try new.restore(try old.stateBytes())
                    #expect(try new.checksum(pool: WorkPool(threads: 2)) == old.checksum(pool: WorkPool(threads: 1)))
                    return new
                }
            }
        }

        func state(into weights: ParameterBuffer) throws -> [[TensorView]] {
            try self.shards.withLock { shards in
                try shards.map { shard in
                    shard.put(into: weights)
                    return try shard.tensors(in: try shard.stateBytes())
                }
            }
        }
    }

    static func json(_ activation: String) -> String {
        """
        {"model_type": "switch_transformers", "vocab_size": 150, "d_model": 48, "d_kv": 16, "d_ff": 70,
         "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1,
         "num_sparse_decoder_layers": 1, "num_experts": 5, "expert_capacity": 64, "decoder_start_token_id": 0,
         "eos_token_id": 1, "pad_token_id": 0, "feed_forward_proj": "\(activation)", "tie_word_embeddings": true}
        """
    }

    static func test(_ activation: String, _ precision: TrainingPrecision = .float32) throws -> TrainingCase {
        let json = Self.json(activation)
        let configuration = try ModelConfiguration.load(contents: Array(json.utf8), name: "test")
        let lengths = [(33, 20), (1, 3), (40, 1), (17, 29), (25, 25), (9, 30)].map { (input: $0.0, target: $0.1) }
        let examples = TrainingCase.examples(lengths, vocabulary: 150, seed: 5)
        var test = TrainingCase(name: activation, configuration: configuration, batch: TrainingBatch(examples))
        test.settings.dropout = 0.1
        test.settings.expertDropout = 0.3
        test.settings.jitter = 0.02
        test.settings.balance = 0.1
        test.settings.capacity = .factor(1)
        test.settings.precision = precision
        test.settings.seed = 77
        return test
    }

    /// Weights and reports after some steps; nil experts for those of the step itself.
    private static func train(
        _ test: TrainingCase,
        _ optimizer: OptimizerPlan,
        parts: [Range<Int>]? = nil,
        _ shards: Shards? = nil,
        afterStep: (Int) throws -> Void = { _ in }
    ) throws -> (ParameterBuffer, [Double]) {
        let pool = WorkPool(threads: 2)
        let step = try TrainingStep(
            test.configuration,
            settings: test.settings,
            pool: pool,
            experts: shards.map { .learning($0) } ?? .here
        )
        let layout = step.layout
        let gradients = Gradients(layout: layout, wanted: shards == nil ? nil : layout.outsideExperts)
        let made = try optimizer.optimizer(of: shards == nil ? layout : layout.withoutExperts)
        let weights = try test.weights()
        try shards?.load(weights, state: [:], steps: [:], step: 0)
        // What is elsewhere must not be used here.
        if shards != nil {
            for (index, entry) in layout.entries.enumerated() {
                if case .expert = entry.kind { weights[index].update(repeating: .nan) }
            }
        }
        var reports: [Double] = []
        for number in 0..<4 {
            var batch = test.batch
            // An expert without a token must stay as it is.
            batch.examples = number == 2 ? Array(batch.examples.prefix(1)) : batch.examples
            batch.parts = number == 2 ? [0..<1] : parts ?? [0..<batch.examples.count]
            let report = try step.gradients(batch, weights: weights, into: gradients, step: number)
            let scale = GradientNorm.clipFactor(norm: report.gradientNorm, limit: 0.5)
            shards?.apply(rate: 0.01, scale: scale)
            made.step(weights: weights, gradients: gradients, learningRate: 0.01, gradientScale: scale, pool: pool)
            reports += [report.loss, report.gradientNorm]
            try afterStep(number)
        }
        if let shards { _ = try shards.state(into: weights) }
        return (weights, reports)
    }

    private static func expectSame(
        _ one: (ParameterBuffer, [Double]),
        _ two: (ParameterBuffer, [Double]),
        _ words: String
    ) {
        #expect(one.1.map(\.bitPattern) == two.1.map(\.bitPattern), "\(words)")
        #expect(one.0.all.elementsEqual(two.0.all) { $0.bitPattern == $1.bitPattern }, "\(words)")
    }

    @Test(
        "However many shards, threads and parts there are, and on every instruction set, weights end with the same bits",
        arguments: ["relu", "gated-gelu"]
    )
    func sameBits(activation: String) throws {
        let test = try Self.test(activation)
        var scaled = AdamW.Settings()
        scaled.scaleParameter = true
        scaled.decay = WeightDecay(0.1, groups: [.init(pattern: "*.router.*", value: 0)])
        for optimizer in [OptimizerPlan.adamW(scaled), .adafactor(.init())] {
            let own = try Self.train(test, optimizer)
            #expect(own.1.allSatisfy { $0.isFinite })
            for (count, threads, level) in [
                (1, 1, KernelLevel.best), (2, 3, KernelLevel.scalar), (4, 1, .best), (5, 2, .best),
            ] {
                let plans = try ShardPlan.shards(
                    test.configuration,
                    count: count,
                    optimizer: optimizer,
                    settings: test.settings
                )
                let shards = try Shards(test.configuration, plans, threads: threads, level: level)
                Self.expectSame(own, try Self.train(test, optimizer, shards), "\(activation), \(count) shards")
            }
        }
    }

    @Test("labml's experts with their biases, and its Adam, end with the same bits too")
    func labml() throws {
        let test = try LabmlTrainingTests.busy()
        let optimizer = OptimizerPlan.adam(.init())
        let own = try Self.train(test, optimizer)
        for count in [1, 3, 5] {
            let plans = try ShardPlan.shards(
                test.configuration,
                count: count,
                optimizer: optimizer,
                settings: test.settings
            )
            let shards = try Shards(test.configuration, plans, threads: 2, level: .best)
            let other = try Self.train(test, optimizer, parts: [0..<2, 2..<6], shards) { number in
                if number == 1 { try shards.replace() }
                shards.voids.withLock { $0 = number == 2 ? 1 : 0 }
            }
            Self.expectSame(own, other, "\(count) shards")
        }
    }

    @Test("Parts, bfloat16, other shards in the middle of a run, and a step that is computed again do not show")
    func sameBitsDifferently() throws {
        for precision in TrainingPrecision.allCases {
            let test = try Self.test("relu", precision)
            let optimizer = OptimizerPlan.adamW(.init())
            let own = try Self.train(test, optimizer)
            let plans = try ShardPlan.shards(
                test.configuration,
                count: 2,
                optimizer: optimizer,
                settings: test.settings
            )
            let shards = try Shards(test.configuration, plans, threads: 1, level: .best)
            let other = try Self.train(test, optimizer, parts: [0..<1, 1..<4, 4..<6], shards) { number in
                if number == 0 { try shards.replace() }
                shards.voids.withLock { $0 = number == 1 ? 3 : 0 }
            }
            Self.expectSame(own, other, "\(precision)")
        }
    }

    @Test("A step whose experts are never to be trusted ends in words")
    func void() throws {
        let test = try Self.test("relu")
        let plans = try ShardPlan.shards(
            test.configuration,
            count: 1,
            optimizer: .adamW(.init()),
            settings: test.settings
        )
        let shards = try Shards(test.configuration, plans, threads: 1, level: .best)
        shards.voids.withLock { $0 = 100 }
        let error = #expect(throws: TrainingError.self) { try Self.train(test, .adamW(.init()), shards) }
        #expect(error?.code == .voidStep)
        #expect(error?.message == "a bit flipped")
    }

    @Test("A plan survives JSON, and one that does not fit the model is refused by name")
    func plans() throws {
        let test = try Self.test("relu")
        let plans = try ShardPlan.shards(
            test.configuration,
            count: 3,
            optimizer: .adafactor(.init()),
            settings: test.settings
        )
        #expect(plans.map { $0.held.map(\.experts) } == [[[0], [0]], [[1, 2], [1, 2]], [[3, 4], [3, 4]]])
        let encoded = try JSONEncoder().encode(plans)
        #expect(try JSONDecoder().decode([ShardPlan].self, from: encoded) == plans)
        for count in [0, 6] {
            let error = #expect(throws: TrainingError.self) {
                try ShardPlan.shards(
                    test.configuration,
                    count: count,
                    optimizer: .adamW(.init()),
                    settings: test.settings
                )
            }
            #expect(error?.message.contains("from 1 to 5") == true)
        }
        for (word, change) in [
            ("ascending", { $0.held[0].experts = [1, 0] }), ("ascending", { $0.held[0].experts = [5] }),
            ("no sparse layer", { $0.held[0].block = 7 }), ("twice", { $0.held.append($0.held[0]) }),
            ("dropout", { $0.dropout = 1 }), ("no experts", { $0.held = [] }),
        ] as [(String, (inout ShardPlan) -> Void)] {
            var plan = plans[0]
            change(&plan)
            let error = #expect(throws: TrainingError.self) { try plan.validate(test.configuration) }
            #expect(error?.message.contains(word) == true, "\(word): \(error?.message ?? "")")
        }
    }

    @Test("Bytes of another shard are refused")
    func states() throws {
        let test = try Self.test("relu")
        let plans = try ShardPlan.shards(
            test.configuration,
            count: 2,
            optimizer: .adamW(.init()),
            settings: test.settings
        )
        let shards = try plans.map { try ExpertShard(test.configuration, plan: $0, pool: WorkPool(threads: 1)) }
        #expect(try shards[0].stateByteCount() == shards[0].stateBytes().count)
        let error = #expect(throws: CheckpointError.self) { try shards[0].restore(try shards[1].stateBytes()) }
        #expect(error?.message.contains("another shard") == true)
    }
}
