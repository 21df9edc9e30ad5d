// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Shards of experts whose adapter is trained elsewhere")
struct AdapterShardTests {
    /// A model on disk, which is below an adapter, and the same in memory.
    private final class Model {
        let folder: String
        let test: TrainingCase
        let checkpoint: Checkpoint

        init(_ activation: String = "relu", _ precision: TrainingPrecision = .float32) throws {
            self.folder = NSTemporaryDirectory() + "adapter-shards-\(UUID().uuidString)"
            self.test = try ExpertShardTests.test(activation, precision)
            try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
            let json = ExpertShardTests.json(activation)
            try json.write(toFile: self.folder + "/config.json", atomically: true, encoding: .utf8)
            try SafetensorsWriter.write(try self.test.weights().tensors(), to: self.folder + "/model.safetensors")
            self.checkpoint = try Checkpoint.open(self.folder)
        }

        deinit { try? FileManager.default.removeItem(atPath: self.folder) }

        func plans(_ count: Int, _ settings: LowRankSettings, _ optimizer: OptimizerPlan) throws -> [ShardPlan] {
            try ShardPlan.shards(
                self.test.configuration,
                count: count,
                optimizer: optimizer,
                settings: self.test.settings,
                adapter: ShardPlan.Adapter(settings, base: self.checkpoint.fingerprint)
            )
        }

        func shards(
            _ count: Int,
            _ settings: LowRankSettings,
            _ optimizer: OptimizerPlan,
            threads: Int = 1,
            level: KernelLevel = .best
        ) throws -> ExpertShardTests.Shards {
            try ExpertShardTests.Shards(
                self.test.configuration,
                try self.plans(count, settings, optimizer),
                threads: threads,
                level: level,
                base: self.checkpoint
            )
        }
    }

    /// What a run ends with.
    private struct Ending {
        var adapter: ParameterBuffer
        var merged: ParameterBuffer
        var reports: [Double]
    }

    /// Trains an adapter for some steps; nil shards for one that is trained here.
    private static func train(
        _ model: Model,
        _ settings: LowRankSettings,
        _ optimizer: OptimizerPlan,
        parts: [Range<Int>]? = nil,
        _ shards: ExpertShardTests.Shards? = nil,
        afterStep: (Int) throws -> Void = { _ in }
    ) throws -> Ending {
        let (test, pool) = (model.test, WorkPool(threads: 2))
        let place: ExpertPlace = shards.map { .learning($0) } ?? .here
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: pool, experts: place)
        let weights = try test.weights()
        let adapter = try LowRankAdapter(
            weights,
            settings: settings,
            seed: test.settings.seed,
            expertsElsewhere: shards != nil
        )
        // B is not zeros, so that the first step's gradients of A are not either.
        for (index, entry) in adapter.layout.entries.enumerated() where index % 2 == 1 {
            let seed = entry.name.utf8.reduce(UInt32(3)) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
            let target = adapter.weights[index]
            for place in target.indices { target[place] = Float(0.2 * TrainingCase.number(place, seed: seed)) }
        }
        let gradients = Gradients(layout: step.layout, wanted: adapter.wanted)
        let made = try optimizer.optimizer(of: shards == nil ? adapter.layout : adapter.layout.withoutExperts)
        try shards?.load(adapter.weights, state: [:], steps: [:], step: 0)
        adapter.apply(to: weights, pool: pool)
        // What is elsewhere must not be used here.
        if shards != nil {
            for (index, entry) in step.layout.entries.enumerated() where entry.kind.isExpert {
                weights[index].update(repeating: .nan)
            }
        }
        var reports: [Double] = []
        for number in 0..<4 {
            var batch = test.batch
            // An expert without a token must keep its A and B.
            batch.examples = number == 2 ? Array(batch.examples.prefix(1)) : batch.examples
            batch.parts = number == 2 ? [0..<1] : parts ?? [0..<batch.examples.count]
            let report = try step.gradients(batch, weights: weights, into: gradients, step: number)
            adapter.project(gradients, pool: pool)
            var squares = GradientNorm.squares(of: adapter.gradients, pool: pool)
            for (index, entry) in adapter.layout.entries.enumerated() {
                if let square = step.squaresElsewhere[entry.name] { squares[index] = square }
            }
            let norm = try GradientNorm.norm(squares: squares, layout: adapter.layout, scale: 1)
            let scale = GradientNorm.clipFactor(norm: norm, limit: 0.5)
            shards?.apply(rate: 0.01, scale: scale)
            made.step(
                weights: adapter.weights,
                gradients: adapter.gradients,
                learningRate: 0.01,
                gradientScale: scale,
                pool: pool
            )
            adapter.apply(to: weights, pool: pool)
            reports += [report.loss, norm]
            try afterStep(number)
        }
        if let shards {
            _ = try shards.state(into: adapter.weights)
            for (index, entry) in step.layout.entries.enumerated() where entry.kind.isExpert {
                try weights.read(entry.role, of: model.checkpoint, into: index)
            }
            try adapter.applyElsewhere(to: weights, of: model.checkpoint, pool: pool)
        }
        return Ending(adapter: adapter.weights, merged: weights, reports: reports)
    }

    private static func expectSame(_ one: Ending, _ two: Ending, _ words: String) {
        #expect(one.reports.map(\.bitPattern) == two.reports.map(\.bitPattern), "\(words)")
        #expect(sameBits(one.adapter, two.adapter), "\(words)")
        #expect(sameBits(one.merged, two.merged), "\(words)")
    }

    private static func settings(_ targets: [String], rank: Int = 3) -> LowRankSettings {
        var settings = LowRankSettings()
        (settings.rank, settings.alpha, settings.targets) = (rank, 7, targets)
        return settings
    }

    @Test(
        "However many shards, threads and parts there are, and on every instruction set, the adapter ends with the same bits",
        arguments: ["relu", "gated-gelu"]
    )
    func anywhere(activation: String) throws {
        let model = try Model(activation)
        var decaying = AdamW.Settings()
        decaying.decay = WeightDecay(0.1)
        var plain = Adafactor.Settings()
        (plain.relativeStep, plain.scaleParameter) = (false, false)
        var stable = Self.settings([LowRankSettings.allLinear])
        stable.isRankStabilized = true
        for (optimizer, settings) in [
            (OptimizerPlan.adamW(decaying), stable),
            // Experts of some shards, and of others none.
            (.adafactor(plain), Self.settings(["q", "experts.expert_1.wo", "decoder.*.expert_4.*"])),
            (.adamW(.init()), Self.settings(["*.experts.*"], rank: 60)),
        ] {
            let own = try Self.train(model, settings, optimizer)
            #expect(own.reports.allSatisfy { $0.isFinite })
            for (count, threads, level) in [(1, 1, KernelLevel.best), (2, 3, .scalar), (5, 2, .best)] {
                let shards = try model.shards(count, settings, optimizer, threads: threads, level: level)
                let other = try Self.train(model, settings, optimizer, shards)
                Self.expectSame(own, other, "\(activation), \(settings.targets), \(count) shards")
            }
        }
    }

    @Test("Parts, bfloat16, other shards in the middle of a run, and a step that is computed again do not show")
    func sameBitsDifferently() throws {
        for precision in TrainingPrecision.allCases {
            let model = try Model("relu", precision)
            let (settings, optimizer) = (Self.settings(["wi", "wo", "k"]), OptimizerPlan.adamW(.init()))
            let own = try Self.train(model, settings, optimizer)
            let shards = try model.shards(2, settings, optimizer)
            let other = try Self.train(model, settings, optimizer, parts: [0..<1, 1..<4, 4..<6], shards) { number in
                if number == 0 { try shards.replace() }
                shards.voids.withLock { $0 = number == 1 ? 3 : 0 }
            }
            Self.expectSame(own, other, "\(precision)")
        }
    }

    @Test("Neither a flipped bit of the weights below the adapter goes unseen, nor one of their sums with its product")
    func flipped() throws {
        for precision in TrainingPrecision.allCases {
            let model = try Model("relu", precision)
            let settings = Self.settings(["wo"])
            let plan = try model.plans(2, settings, .adamW(.init()))[1]
            let shard = try ExpertShard(model.test.configuration, plan: plan, pool: WorkPool(threads: 2))
            let base = try ShardBase(model.checkpoint, plan: plan)
            func bring() throws {
                shard.putBase(try base.piece(at: 0, upTo: base.byteCount), at: 0)
                try shard.completeBase(checksum: base.checksum)
            }
            let adapter = try #require(shard.adapter)
            let untouched = try #require(adapter.targets.firstIndex(of: false))
            let changed = try #require(adapter.targets.firstIndex(of: true))
            let computed = shard.rounded ?? shard.weights
            for memory in [computed[changed], try #require(adapter.base[changed]), shard.weights[untouched]] {
                try bring()
                #expect(shard.hasSoundWeights())
                memory[17] = Float(bitPattern: memory[17].bitPattern ^ (1 << 16))
                #expect(!shard.hasSoundWeights())
            }
            // What comes wrong is refused, and is not used.
            var bytes = try base.piece(at: 0, upTo: base.byteCount)
            bytes[100] ^= 1
            shard.putBase(bytes, at: 0)
            let error = #expect(throws: CheckpointError.self) { try shard.completeBase(checksum: base.checksum) }
            #expect(error?.code == .fingerprintMismatch)
            #expect(shard.needsBase && !shard.hasSoundWeights())
        }
    }

    @Test("A shard's sizes are known before it is made, its state is the adapter's, and its plan survives JSON")
    func sizes() throws {
        let model = try Model()
        let settings = Self.settings(["experts.expert_3.wi", "v"], rank: 4)
        let plan = try model.plans(2, settings, .adamW(.init()))[1]
        #expect(try JSONDecoder().decode(ShardPlan.self, from: JSONEncoder().encode(plan)) == plan)
        let shard = try ExpertShard(model.test.configuration, plan: plan, pool: WorkPool(threads: 1))
        // Two layers; A [4, 48] and B [70, 4] of one matrix each, moments twice, and counts of steps.
        #expect(shard.layout.parameterCount == 2 * 4 * (48 + 70))
        #expect(try shard.stateByteCount() == 3 * 4 * shard.layout.parameterCount + 8 * 4)
        let full = try ShardPlan.shards(
            model.test.configuration,
            count: 2,
            optimizer: .adamW(.init()),
            settings: model.test.settings
        )
        let whole = try ExpertShard(model.test.configuration, plan: full[1], pool: WorkPool(threads: 1))
        #expect(whole.baseByteCount == 0 && !whole.needsBase)
        let weights = whole.layout.parameterCount * 4
        #expect(shard.baseByteCount == weights)
        let size = try ExpertShard.byteCount(model.test.configuration, plan: plan)
        #expect(size == weights + 2 * 4 * (2 * 48 * 70 + shard.layout.parameterCount))
        #expect(try ExpertShard.byteCount(model.test.configuration, plan: full[1]) == 2 * weights)
        // One that has nothing to train computes all the same.
        let idle = try ExpertShard(
            model.test.configuration,
            plan: try model.plans(2, settings, .adamW(.init()))[0],
            pool: WorkPool(threads: 1)
        )
        #expect(idle.layout.entries.isEmpty)
        try idle.restore(try idle.stateBytes())
        let error = #expect(throws: CheckpointError.self) { try shard.restore(try idle.stateBytes()) }
        #expect(error?.message.contains("another shard") == true)
        for (words, change) in [
            ("names no matrix", { $0.targets = ["experts.expert_9.wi"] }), ("rank", { $0.rank = 0 }),
            ("lora_dropout", { $0.dropout = 0.1 }),
        ] as [(String, (inout LowRankSettings) -> Void)] {
            var settings = settings
            change(&settings)
            let error = #expect(throws: TrainingError.self) {
                try ExpertShard(
                    model.test.configuration,
                    plan: try model.plans(1, settings, .adamW(.init()))[0],
                    pool: WorkPool(threads: 1)
                )
            }
            #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
        }
    }
}
