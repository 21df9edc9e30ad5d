// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// Weights and gradients of `make_optimizer_fixtures.py`, and what torch and transformers make of them.
struct OptimizerFixture: Decodable {
    struct Settings: Decodable {
        var lr: Double?
        var decay: Double?
        var clip: Double?
        var scale: Double?
        var betas: [Double]?
        var eps: Epsilon?
        var warmUpInit: Bool?
        var relativeStep: Bool?
        var scaleParameter: Bool?
        var scaleEpsilon: Double?
        var decayRate: Double?
        var clipThreshold: Double?

        private enum CodingKeys: String, CodingKey {
            case lr, decay, clip, scale, betas, eps
            case warmUpInit = "warmup_init"
            case relativeStep = "relative_step"
            case scaleParameter = "scale_parameter"
            case scaleEpsilon = "scale_eps"
            case decayRate = "decay_rate"
            case clipThreshold = "clip_threshold"
        }
    }

    /// AdamW has one epsilon, Adafactor two.
    enum Epsilon: Decodable {
        case one(Double)
        case two([Double])

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let value = try? container.decode(Double.self) {
                self = .one(value)
            } else {
                self = .two(try container.decode([Double].self))
            }
        }
    }

    struct Case: Decodable {
        var settings: Settings
        var norms: [Double]
        var weights: [String: Data]
    }

    var shapes: [String: [Int]]
    var start: [String: Data]
    var gradients: [[String: Data]]
    var untouched: String
    var adamw: [Case]
    var adafactor: [Case]

    static func load() throws -> Self {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/optimizers.json")
        return try JSONDecoder().decode(Self.self, from: Data(contentsOf: file))
    }

    /// The fixture's model.
    static func layout() throws -> ParameterLayout {
        try ParameterLayout(
            ParameterTests.tiny {
                $0.vocabularySize = 130
                $0.encoderBlocks = 2
                $0.decoderBlocks = 2
            }
        )
    }

    static func fill(_ buffer: ParameterBuffer, from tensors: [String: Data]) throws {
        for (index, entry) in buffer.layout.entries.enumerated() {
            let data = try #require(tensors[entry.name], "\(entry.name)")
            #expect(data.count == entry.range.count * 4)
            data.withUnsafeBytes { UnsafeMutableRawBufferPointer(buffer[index]).copyMemory(from: $0) }
        }
    }

    /// The gradients of a step, with the expert that has none in the second.
    func gradients(_ step: Int, layout: ParameterLayout) throws -> Gradients {
        let gradients = Gradients(layout: layout)
        try Self.fill(gradients.values, from: self.gradients[step])
        for (index, entry) in layout.entries.enumerated() {
            gradients.touched[index] = step != 1 || !entry.name.hasPrefix(self.untouched)
        }
        return gradients
    }
}

@Suite("Optimizers")
struct OptimizerTests {
    private static func adamW(_ settings: OptimizerFixture.Settings, _ layout: ParameterLayout) throws -> AdamW {
        var made = AdamW.Settings()
        if let betas = settings.betas { (made.beta1, made.beta2) = (betas[0], betas[1]) }
        if case .one(let epsilon) = settings.eps { made.epsilon = epsilon }
        made.scaleParameter = settings.scaleParameter ?? made.scaleParameter
        made.scaleEpsilon = settings.scaleEpsilon ?? made.scaleEpsilon
        made.decay = WeightDecay(settings.decay ?? 0)
        return try AdamW(layout: layout, settings: made)
    }

    private static func adafactor(_ settings: OptimizerFixture.Settings, _ layout: ParameterLayout) throws -> Adafactor
    {
        var made = Adafactor.Settings()
        made.warmUpInit = settings.warmUpInit ?? made.warmUpInit
        made.relativeStep = settings.relativeStep ?? made.relativeStep
        made.scaleParameter = settings.scaleParameter ?? made.scaleParameter
        made.decayRate = settings.decayRate ?? made.decayRate
        made.clipThreshold = settings.clipThreshold ?? made.clipThreshold
        if case .two(let epsilons) = settings.eps {
            (made.squareEpsilon, made.scaleEpsilon) = (epsilons[0], epsilons[1])
        }
        made.decay = WeightDecay(settings.decay ?? 0)
        return try Adafactor(layout: layout, settings: made)
    }

    private func optimizer(
        _ kind: String,
        _ settings: OptimizerFixture.Settings,
        _ layout: ParameterLayout
    ) throws -> any Optimizer {
        kind == "adamw" ? try Self.adamW(settings, layout) : try Self.adafactor(settings, layout)
    }

    private func step(
        _ optimizer: any Optimizer,
        _ fixture: OptimizerFixture,
        _ step: Int,
        _ settings: OptimizerFixture.Settings,
        _ weights: ParameterBuffer,
        _ pool: WorkPool
    ) throws -> Double {
        let gradients = try fixture.gradients(step, layout: optimizer.layout)
        let scale = settings.scale ?? 1
        let norm = try GradientNorm.norm(of: gradients, scale: scale, pool: pool)
        optimizer.step(
            weights: weights,
            gradients: gradients,
            learningRate: settings.lr ?? 0,
            gradientScale: scale * GradientNorm.clipFactor(norm: norm, limit: settings.clip),
            pool: pool
        )
        return norm
    }

    private func start(_ fixture: OptimizerFixture, _ layout: ParameterLayout) throws -> ParameterBuffer {
        let weights = ParameterBuffer(layout: layout)
        try OptimizerFixture.fill(weights, from: fixture.start)
        return weights
    }

    @Test("make the weights that torch and transformers make", arguments: ["adamw", "adafactor"])
    func parity(kind: String) throws {
        let fixture = try OptimizerFixture.load()
        let layout = try OptimizerFixture.layout()
        #expect(Set(layout.entries.map(\.name)) == Set(fixture.shapes.keys))
        let pool = WorkPool(threads: 2)
        let cases = kind == "adamw" ? fixture.adamw : fixture.adafactor
        #expect(cases.count >= 3 && cases.contains { $0.settings.scaleParameter == true || kind == "adafactor" })
        for (number, golden) in cases.enumerated() {
            let weights = try self.start(fixture, layout)
            let optimizer = try self.optimizer(kind, golden.settings, layout)
            for step in 0..<3 {
                let norm = try self.step(optimizer, fixture, step, golden.settings, weights, pool)
                #expect(abs(norm - golden.norms[step]) <= 1e-6 * golden.norms[step])
            }
            let expected = ParameterBuffer(layout: layout)
            try OptimizerFixture.fill(expected, from: golden.weights)
            for (index, entry) in layout.entries.enumerated() {
                let rms = (expected[index].reduce(0.0) { $0 + Double($1) * Double($1) } / Double(entry.range.count))
                    .squareRoot()
                let worst = zip(weights[index], expected[index]).map { abs(Double($0) - Double($1)) }.max() ?? 0
                #expect(worst <= 1e-6 * rms, "case \(number), \(entry.name): \(worst / rms)")
            }
            // The gaps between tensors stay zeros.
            let inside = IndexSet(layout.entries.flatMap { Array($0.range) })
            #expect((0..<layout.count).allSatisfy { inside.contains($0) || weights.all[$0] == 0 })
        }
    }

    @Test("leave a tensor without a gradient as it is, decay and moments included", arguments: ["adamw", "adafactor"])
    func untouched(kind: String) throws {
        let fixture = try OptimizerFixture.load()
        let layout = try OptimizerFixture.layout()
        var settings = OptimizerFixture.Settings()
        settings.lr = 1e-2
        settings.decay = 0.5
        settings.relativeStep = false
        let optimizer = try self.optimizer(kind, settings, layout)
        let weights = try self.start(fixture, layout)
        let pool = WorkPool(threads: 1)
        _ = try self.step(optimizer, fixture, 0, settings, weights, pool)
        let before = weights.all.map(\.bitPattern)
        let stateBefore = try self.bytes(optimizer)
        _ = try self.step(optimizer, fixture, 1, settings, weights, pool)
        let stateAfter = try self.bytes(optimizer)
        var skipped = 0
        for entry in layout.entries {
            let isSame = entry.range.allSatisfy { weights.all[$0].bitPattern == before[$0] }
            #expect(isSame == entry.name.hasPrefix(fixture.untouched), "\(entry.name)")
            skipped += isSame ? 1 : 0
            for (name, bytes) in stateBefore where name.hasSuffix("." + entry.name) {
                #expect((stateAfter[name] == bytes) == isSame, "\(name)")
            }
        }
        #expect(skipped == 2)
    }

    private func bytes(_ optimizer: any Optimizer) throws -> [String: [UInt8]] {
        Dictionary(
            uniqueKeysWithValues: try optimizer.state().map { ($0.name, $0.withUnsafeBytes { Array($0) }) }
        )
    }

    @Test("go on from their saved state bit for bit", arguments: ["adamw", "adafactor"])
    func resumes(kind: String) throws {
        let fixture = try OptimizerFixture.load()
        let layout = try OptimizerFixture.layout()
        let settings = (kind == "adamw" ? fixture.adamw : fixture.adafactor)[0].settings
        let pool = WorkPool(threads: 1)
        let first = try self.optimizer(kind, settings, layout)
        let weights = try self.start(fixture, layout)
        for step in 0..<2 { _ = try self.step(first, fixture, step, settings, weights, pool) }
        let path = FileManager.default.temporaryDirectory.appending(path: "state-\(UUID().uuidString).safetensors").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try SafetensorsWriter.write(try first.state(), to: path)
        let resumedWeights = ParameterBuffer(layout: layout)
        resumedWeights.copy(from: weights)
        let second = try self.optimizer(kind, settings, layout)
        try second.restore(try SafetensorsFile.read(path).shuffled())
        #expect(try self.bytes(second) == (try self.bytes(first)))
        _ = try self.step(first, fixture, 2, settings, weights, pool)
        _ = try self.step(second, fixture, 2, settings, resumedWeights, pool)
        #expect(weights.all.map(\.bitPattern) == resumedWeights.all.map(\.bitPattern))
        #expect(try self.bytes(second) == (try self.bytes(first)))
    }

    @Test("refuse a state that is not theirs, with the tensor's name", arguments: ["adamw", "adafactor"])
    func otherState(kind: String) throws {
        let layout = try OptimizerFixture.layout()
        let optimizer = try self.optimizer(kind, .init(), layout)
        let state = try optimizer.state()
        let missing = #expect(throws: CheckpointError.self) { try optimizer.restore(Array(state.dropLast())) }
        #expect(missing?.code == .missingTensor && missing?.tensor == state.last?.name)
        let extra = try TensorView(name: "optimizer.other", dtype: .float32, shape: [1], bytes: [0, 0, 0, 0])
        #expect(#expect(throws: CheckpointError.self) { try optimizer.restore(state + [extra]) }?.tensor == extra.name)
        let other = try TensorView(name: state[1].name, dtype: .float32, shape: [1], bytes: [0, 0, 0, 0])
        let shape = #expect(throws: CheckpointError.self) {
            try optimizer.restore([state[0], other] + state.dropFirst(2))
        }
        #expect(shape?.code == .wrongShape && shape?.tensor == other.name)
        // A state whose last tensor is wrong changes nothing.
        let fixture = try OptimizerFixture.load()
        let weights = try self.start(fixture, layout)
        let pool = WorkPool(threads: 1)
        var settings = OptimizerFixture.Settings()
        settings.lr = 1e-3
        settings.relativeStep = false
        let used = try self.optimizer(kind, settings, layout)
        _ = try self.step(used, fixture, 0, settings, weights, pool)
        let before = try self.bytes(used)
        let last = try #require(state.last)
        let wrong = try TensorView(name: last.name, dtype: .float32, shape: [1], bytes: [0, 0, 0, 0])
        #expect(throws: CheckpointError.self) { try used.restore(state.dropLast() + [wrong]) }
        #expect(try self.bytes(used) == before)
        let foreign = try self.optimizer(kind == "adamw" ? "adafactor" : "adamw", .init(), layout)
        #expect(throws: CheckpointError.self) { try optimizer.restore(try foreign.state()) }
    }

    @Test(
        "give the same bits for any number of threads and every instruction set",
        arguments: [("adamw", false), ("adamw", true), ("adafactor", true)]
    )
    func threads(kind: String, scaleParameter: Bool) throws {
        // Tensors of several blocks and chunks, with odd extents.
        let layout = try ParameterLayout(
            ParameterTests.tiny {
                $0.vocabularySize = 1501
                $0.modelWidth = 47
                $0.feedForwardWidth = 333
            }
        )
        func run(_ threads: Int, _ level: KernelLevel = .best) throws -> [UInt32] {
            let pool = WorkPool(threads: threads)
            let weights = ParameterBuffer(layout: layout)
            let gradients = Gradients(layout: layout)
            var state: UInt32 = 1
            func next() -> Float {
                state = state &* 1_664_525 &+ 1_013_904_223
                return Float(Int32(bitPattern: state)) * 0x1p-32
            }
            for (index, _) in layout.entries.enumerated() {
                gradients.touched[index] = true
                for element in weights[index].indices {
                    weights[index][element] = next()
                    gradients.values[index][element] = next()
                }
            }
            var settings = OptimizerFixture.Settings()
            settings.decay = 0.01
            settings.scaleParameter = scaleParameter
            let optimizer = try self.optimizer(kind, settings, layout)
            (optimizer as? AdamW)?.level = level
            (optimizer as? Adafactor)?.level = level
            for _ in 0..<2 {
                let norm = try GradientNorm.norm(of: gradients, scale: 3, pool: pool)
                optimizer.step(
                    weights: weights,
                    gradients: gradients,
                    learningRate: 1e-3,
                    gradientScale: GradientNorm.clipFactor(norm: norm, limit: 1),
                    pool: pool
                )
            }
            return weights.all.map(\.bitPattern)
        }
        let alone = try run(1)
        #expect(try run(2) == alone)
        #expect(try run(3) == alone)
        for level in KernelLevel.available {
            #expect(try run(2, level) == alone, "\(level.name)")
        }
    }

    @Test("refuse settings out of range")
    func settings() throws {
        let layout = try OptimizerFixture.layout()
        let adamW: [(inout AdamW.Settings) -> Void] = [
            { $0.beta1 = 1 }, { $0.beta2 = -0.1 }, { $0.epsilon = 0 }, { $0.epsilon = .nan },
            { $0.scaleEpsilon = -1 }, { $0.scaleEpsilon = .nan },
            { $0.decay = WeightDecay(-1) },
            { $0.decay = WeightDecay(0, groups: [.init(pattern: "absent*", value: 0)]) },
        ]
        for change in adamW {
            var settings = AdamW.Settings()
            change(&settings)
            let error = #expect(throws: TrainingError.self) { try AdamW(layout: layout, settings: settings) }
            #expect(error?.code == .invalidSettings)
        }
        let adafactor: [(inout Adafactor.Settings) -> Void] = [
            { $0.squareEpsilon = 0 }, { $0.scaleEpsilon = .infinity }, { $0.clipThreshold = 0 }, { $0.decayRate = 0 },
            {
                $0.warmUpInit = true
                $0.relativeStep = false
            }, { $0.decay = WeightDecay(.nan) },
        ]
        for change in adafactor {
            var settings = Adafactor.Settings()
            change(&settings)
            let error = #expect(throws: TrainingError.self) { try Adafactor(layout: layout, settings: settings) }
            #expect(error?.code == .invalidSettings)
        }
    }
}
