// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// A model and a LoRA adapter of known numbers.
struct AdaptedCase {
    var test: TrainingCase
    let base: ParameterBuffer
    let adapter: LowRankAdapter

    init(_ test: TrainingCase, _ settings: LowRankSettings) throws {
        self.test = test
        self.base = try test.weights()
        self.adapter = try LowRankAdapter(self.base, settings: settings, seed: 1)
        // As `weight` of make_training_cases.py.
        for (index, entry) in self.adapter.layout.entries.enumerated() {
            let seed = entry.name.utf8.reduce(test.seed &* 31) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
            let target = self.adapter.weights[index]
            for place in target.indices {
                target[place] = Float(TrainingCase.number(place, seed: seed) / Double(entry.shape[1]).squareRoot())
            }
        }
    }

    init(_ torch: TorchGradients, named name: String) throws {
        let lora = try #require(torch.lora)
        var settings = LowRankSettings()
        settings.rank = lora.r
        settings.alpha = lora.loraAlpha
        settings.isRankStabilized = lora.useRslora ?? false
        settings.targets =
            switch lora.targetModules {
            case .names(let names): names
            case .word(let word): [word]
            }
        try self.init(torch.test(named: name), settings)
    }

    var scale: Double {
        let settings = self.adapter.settings
        return settings.alpha / (settings.isRankStabilized ? Double(settings.rank).squareRoot() : Double(settings.rank))
    }

    /// Each matrix that is changed, with A and B in float64.
    func modules() -> [(name: String, first: [Double], second: [Double], inputs: Int)] {
        let names = zip(self.base.layout.entries, self.adapter.targets).filter(\.1).map(\.0.name)
        return names.enumerated()
            .map { place, name in
                (
                    name, self.adapter.weights[2 * place].map(Double.init),
                    self.adapter.weights[2 * place + 1].map(Double.init),
                    self.adapter.layout.entries[2 * place].shape[1]
                )
            }
    }

    /// The gradients of A and B in float64, by name, and the loss.
    func reference() throws -> (loss: Double, gradients: [String: [Double]]) {
        let rank = self.adapter.settings.rank
        var changes: [String: [Double]] = [:]
        for module in self.modules() {
            var change = [Double](repeating: 0, count: module.second.count / rank * module.inputs)
            for place in change.indices {
                let (row, column) = place.quotientAndRemainder(dividingBy: module.inputs)
                for k in 0..<rank {
                    change[place] +=
                        self.scale * module.second[row * rank + k] * module.first[k * module.inputs + column]
                }
            }
            changes[module.name] = change
        }
        let model = ReferenceModel(
            self.test.configuration,
            settings: self.test.settings,
            weights: self.base,
            changes: changes
        )
        let loss = model.loss(self.test.batch)
        model.tape.backward(loss)
        var gradients: [String: [Double]] = [:]
        for (place, module) in self.modules().enumerated() {
            let whole = try #require(model.parameters[module.name]?.gradient)
            var first = [Double](repeating: 0, count: module.first.count)
            var second = [Double](repeating: 0, count: module.second.count)
            for (index, value) in whole.enumerated() {
                let (row, column) = index.quotientAndRemainder(dividingBy: module.inputs)
                for k in 0..<rank {
                    first[k * module.inputs + column] += self.scale * module.second[row * rank + k] * value
                    second[row * rank + k] += self.scale * module.first[k * module.inputs + column] * value
                }
            }
            gradients[self.adapter.layout.entries[2 * place].name] = first
            gradients[self.adapter.layout.entries[2 * place + 1].name] = second
        }
        return (loss.data[0], gradients)
    }

    /// A step's report, with the adapter's gradients in the adapter, and the model's.
    @discardableResult
    func step(
        parts: [Range<Int>]? = nil,
        threads: Int = 1,
        level: KernelLevel = .best,
        onlyTargets: Bool = false
    ) throws -> (report: StepReport, weights: ParameterBuffer, gradients: Gradients) {
        let pool = WorkPool(threads: threads)
        let step = try TrainingStep(
            self.test.configuration,
            settings: self.test.settings,
            pool: pool,
            level: level
        )
        var batch = self.test.batch
        if let parts { batch.parts = parts }
        let weights = ParameterBuffer(layout: step.layout)
        weights.copy(from: self.base)
        self.adapter.apply(to: weights, pool: pool)
        let gradients = Gradients(layout: step.layout, wanted: onlyTargets ? self.adapter.targets : nil)
        let report = try step.gradients(batch, weights: weights, into: gradients, step: 3)
        self.adapter.project(gradients, pool: pool, level: level)
        return (report, weights, gradients)
    }
}

func sameBits(_ a: ParameterBuffer, _ b: ParameterBuffer) -> Bool {
    a.layout.count == b.layout.count && a.all.elementsEqual(b.all) { $0.bitPattern == $1.bitPattern }
}

@Suite("LoRA's gradients")
struct LowRankGradientTests {
    static func load(_ name: String) throws -> (TorchGradients, AdaptedCase) {
        let torch = try TorchGradients.load(name, in: TorchGradients.adapters)
        return (torch, try AdaptedCase(torch, named: name))
    }

    @Test(
        "The float64 reference is that of peft on PyTorch's float64 to 1e-9",
        arguments: try TorchGradients.names(in: TorchGradients.adapters)
    )
    func reference(name: String) throws {
        let (torch, test) = try Self.load(name)
        let (loss, gradients) = try test.reference()
        #expect(abs(loss - torch.loss) <= 1e-9 * abs(torch.loss))
        #expect(torch.gradients.count > 8)
        for (tensor, expected) in torch.gradients {
            let gradient = try #require(gradients[tensor], "\(tensor)")
            let norm = expected[0]
            #expect(abs(gradient.reduce(0) { $0 + $1 * $1 }.squareRoot() - norm) <= 1e-9 * norm, "\(tensor)")
            for projection in 0..<4 {
                let along = gradient.enumerated()
                    .reduce(0.0) {
                        $0 + $1.element * TrainingCase.number($1.offset, seed: UInt32(100 + projection))
                    }
                #expect(abs(along - expected[projection + 1]) <= 1e-9 * norm, "\(tensor)")
            }
        }
    }

    @Test(
        "No matrix is further from float64 than 1.5 times peft's float32",
        arguments: try TorchGradients.names(in: TorchGradients.adapters)
    )
    func error(name: String) throws {
        let (torch, test) = try Self.load(name)
        let expected = try test.reference().gradients
        let report = try test.step(threads: 2).report
        #expect(abs(report.loss - torch.loss) <= 1e-6 * abs(torch.loss))
        let gradients = test.adapter.gradients
        for (index, entry) in test.adapter.layout.entries.enumerated() {
            guard let allowed = torch.errors[entry.name] else {
                // An expert without a token: peft has no gradient, and neither have we.
                #expect(!gradients.touched[index], "\(entry.name)")
                continue
            }
            #expect(gradients.touched[index], "\(entry.name)")
            let reference = try #require(expected[entry.name])
            let error = relativeError(gradients.values[index].lazy.map(Double.init), reference)
            #expect(error <= 1.5 * max(allowed, 2e-7), "\(entry.name): \(error), peft's \(allowed)")
        }
    }

    static func busy() throws -> AdaptedCase {
        var settings = LowRankSettings()
        settings.rank = 5
        settings.targets = [LowRankSettings.allLinear]
        return try AdaptedCase(SameBitsTests.busy(), settings)
    }

    @Test(
        "Neither threads, nor the instruction set, nor parts show",
        arguments: KernelLevel.available,
        [[0..<6], [0..<1, 1..<6], [0..<2, 2..<3, 3..<6]]
    )
    func sameGradients(level: KernelLevel, parts: [Range<Int>]) throws {
        let first = try Self.busy()
        let weights = try first.step(level: .scalar).weights
        for threads in [1, 2, 3] {
            let other = try Self.busy()
            let step = try other.step(parts: parts, threads: threads, level: level)
            #expect(sameBits(weights, step.weights))
            #expect(sameBits(first.adapter.gradients.values, other.adapter.gradients.values))
            #expect(first.adapter.gradients.touched == other.adapter.gradients.touched)
        }
    }

    @Test("Gradients that nobody wants are left out, and change nothing")
    func wanted() throws {
        let all = try Self.busy()
        let whole = try all.step()
        let other = try Self.busy()
        let some = try other.step(onlyTargets: true)
        #expect(sameBits(all.adapter.gradients.values, other.adapter.gradients.values))
        #expect(whole.report.loss == some.report.loss)
        #expect(some.report.gradientNorm < whole.report.gradientNorm)
        for (index, isTarget) in other.adapter.targets.enumerated() where !isTarget {
            #expect(!some.gradients.touched[index])
            #expect(some.gradients.values[index].allSatisfy { $0 == 0 })
        }
    }
}

@Suite("LoRA's training")
struct LowRankTrainingTests {
    @Test("A new adapter changes nothing, and is drawn from its seed")
    func initial() throws {
        let test = ModelGradientTests.make("new")
        let base = try test.weights()
        var settings = LowRankSettings()
        settings.rank = 40
        settings.targets = ["wi", "k"]
        let adapter = try LowRankAdapter(base, settings: settings, seed: 7)
        let weights = try test.weights()
        adapter.apply(to: weights, pool: WorkPool(threads: 1))
        #expect(sameBits(weights, base))
        let again = try LowRankAdapter(base, settings: settings, seed: 7)
        #expect(sameBits(adapter.weights, again.weights))
        let other = try LowRankAdapter(base, settings: settings, seed: 8)
        #expect(!sameBits(adapter.weights, other.weights))
        for (index, entry) in adapter.layout.entries.enumerated() {
            let values = adapter.weights[index].map(Double.init)
            guard entry.name.hasSuffix(".lora_A.weight") else {
                #expect(values.allSatisfy { $0 == 0 })
                continue
            }
            let bound = 1 / Double(entry.shape[1]).squareRoot()
            #expect(values.allSatisfy { abs($0) <= bound })
            #expect(values.contains { $0 > 0.9 * bound } && values.contains { $0 < -0.9 * bound })
            #expect(Set(values).count > values.count - 3)
        }
    }

    @Test("Training changes A and B alone, and an expert without a token not at all")
    func learns() throws {
        var test = ModelGradientTests.make("adapted")
        test.batch.routes = [
            SparseLayer(stack: .encoder, block: 1): [0, 0, 2, 2, 0, 0, 0, 2, 2, 0, 2, 0, 0],
            SparseLayer(stack: .decoder, block: 1): [1, 1, 0, 0, 1, 1, 0, 0],
        ]
        let pool = WorkPool(threads: 2)
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: pool)
        let base = try test.weights()
        let weights = try test.weights()
        var settings = LowRankSettings()
        settings.rank = 3
        settings.targets = ["q", "v", "wi", "wo"]
        let adapter = try LowRankAdapter(base, settings: settings, seed: 7)
        let before = ParameterBuffer(layout: adapter.layout)
        before.copy(from: adapter.weights)
        var optimizing = AdamW.Settings()
        optimizing.decay = WeightDecay(0.01)
        let optimizer = try AdamW(layout: adapter.layout, settings: optimizing)
        let gradients = Gradients(layout: step.layout, wanted: adapter.targets)
        var losses: [Double] = []
        for number in 0..<60 {
            losses.append(try step.gradients(test.batch, weights: weights, into: gradients, step: number).loss)
            adapter.project(gradients, pool: pool)
            optimizer.step(
                weights: adapter.weights,
                gradients: adapter.gradients,
                learningRate: 0.02,
                gradientScale: 1,
                pool: pool
            )
            adapter.apply(to: weights, pool: pool)
        }
        #expect(losses[59] < 0.7 * losses[0])
        var idle = 0
        for (index, entry) in adapter.layout.entries.enumerated() {
            let isSame = adapter.weights[index].elementsEqual(before[index])
            // The encoder's expert 1 and the decoder's expert 2 got no token.
            let isIdle =
                entry.name.contains("encoder.block.1.layer.1.mlp.experts.expert_1.")
                || entry.name.contains("decoder.block.1.layer.2.mlp.experts.expert_2.")
            #expect(isSame == isIdle, "\(entry.name)")
            if isIdle { idle += 1 }
        }
        #expect(idle == 8)
        for (index, isTarget) in adapter.targets.enumerated() where !isTarget {
            #expect(weights[index].elementsEqual(base[index]))
        }
    }

    @Test("Targets are chosen by the ends of names, by patterns, or all")
    func targets() throws {
        let layout = try ParameterLayout(ParameterTests.tiny { $0.tiedEmbeddings = false })
        func chosen(_ targets: [String]) throws -> [String] {
            var settings = LowRankSettings()
            settings.targets = targets
            return zip(layout.entries, try settings.chosen(in: layout)).filter(\.1).map(\.0.name)
        }
        #expect(try chosen(["q"]).count == 6)
        #expect(try chosen(["EncDecAttention.q"]).count == 2)
        #expect(try chosen(["wi", "wo"]).count == 2 * (2 + 2 * 3))
        #expect(try chosen(["*.experts.*"]).count == 12)
        #expect(
            try chosen(["decoder.*.expert_2.wi"]) == ["decoder.block.1.layer.2.mlp.experts.expert_2.wi.weight"]
        )
        #expect(try chosen(["lm_head"]) == ["lm_head.weight"])
        let all = try chosen(["all-linear"])
        #expect(all.count == 6 * 4 + 2 * (2 + 2 * 3) + 2)
        #expect(!all.contains("lm_head.weight") && all.contains { $0.contains("classifier") })
    }

    @Test("Settings that cannot be are refused, with field, limit and value")
    func refused() throws {
        let test = ModelGradientTests.make("refused")
        let weights = try test.weights()
        let changes: [(String, (inout LowRankSettings) -> Void)] = [
            ("rank must be from 1 to 65536, but is 0", { $0.rank = 0 }),
            ("rank must be from 1 to 65536, but is 65537", { $0.rank = 65_537 }),
            ("alpha must be above 0 and at most 1000000, but is nan", { $0.alpha = .nan }),
            ("alpha must be above 0 and at most 1000000, but is 0.0", { $0.alpha = 0 }),
            ("dropout (lora_dropout) is 0.1, but only 0 is supported", { $0.dropout = 0.1 }),
            ("name at least one", { $0.targets = [] }), ("name at least one", { $0.targets = ["q", ""] }),
            ("name it alone", { $0.targets = ["q", "all-linear"] }),
            (
                "\"x\" names no matrix of the model; the model has classifier, k, o, q, v, wi, wo",
                { $0.targets = ["q", "x"] }
            ),
            ("\"shared\" is an embedding, a position bias or a norm", { $0.targets = ["shared"] }),
            ("\"relative_attention_bias\" is an embedding", { $0.targets = ["relative_attention_bias"] }),
        ]
        for (text, change) in changes {
            var settings = LowRankSettings()
            change(&settings)
            let error = #expect(throws: TrainingError.self) {
                try LowRankAdapter(weights, settings: settings, seed: 0)
            }
            #expect(error?.code == .invalidSettings)
            #expect(error?.message.contains(text) == true, "\(error?.message ?? "")")
        }
    }
}
