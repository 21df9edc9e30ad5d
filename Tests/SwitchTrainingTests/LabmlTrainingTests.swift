// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// What `make_labml_training.py` wrote of labml's own modules.
struct LabmlGradients: Decodable {
    var length: Int
    var sequences: Int
    var loss: Double
    var norm: Double
    /// For each layer the expert of each token, sequence by sequence; -1 for a dropped one.
    var routes: [[Int32]]
    /// Each tensor's gradient as float64 numbers.
    var gradients: [String: Data]
    var errors: [String: Double]

    private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Fixtures/labml")

    static let names = ["plain", "unscaled", "dropped", "dropped-unscaled", "one-token", "many-experts"]

    static func data(_ name: String) throws -> Data {
        try Data(contentsOf: Self.folder.appending(path: "\(name).json"))
    }

    static func load(_ name: String) throws -> Self {
        try JSONDecoder().decode(Self.self, from: Self.data(name))
    }

    /// The model of a file of fixtures.
    static func configuration(_ name: String) throws -> ModelConfiguration {
        let file = try #require(JSONSerialization.jsonObject(with: Self.data(name)) as? [String: Any])
        let model = try JSONSerialization.data(withJSONObject: try #require(file["model"]))
        return try ModelConfiguration.load(contents: [UInt8](model), name: name)
    }

    static func numbers(_ data: Data) -> [Double] {
        stride(from: 0, to: data.count, by: 8)
            .map { place in
                let bytes = data[data.startIndex + place..<data.startIndex + place + 8]
                return Double(bitPattern: bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
            }
    }

    func test(_ name: String, routed: Bool = true) throws -> TrainingCase {
        let configuration = try Self.configuration(name)
        let lengths = Array(repeating: (input: self.length, target: self.length), count: self.sequences)
        let examples = TrainingCase.examples(lengths, vocabulary: configuration.vocabularySize, seed: 5)
        let routes = Dictionary(uniqueKeysWithValues: zip(configuration.sparseLayers, self.routes))
        var test = TrainingCase(
            name: name,
            configuration: configuration,
            batch: TrainingBatch(examples, routes: routed ? routes : nil)
        )
        test.settings.capacity = .unlimited
        return test
    }
}

/// What labml's Noam makes of given gradients.
struct LabmlNoam: Decodable {
    var steps: Int
    var warmup: Int
    var norms: [Double]
    var weights: [String: Data]
    var errors: [String: Double]
}

@Suite("Training labml's Switch Transformer")
struct LabmlTrainingTests {
    @Test(
        "No gradient is further from labml's in float64 than 1.5 times what labml's float32 is",
        arguments: LabmlGradients.names
    )
    func gradients(name: String) throws {
        let labml = try LabmlGradients.load(name)
        let (report, gradients) = try labml.test(name).gradients(threads: 2)
        #expect(abs(report.loss - labml.loss) <= 1e-6 * labml.loss)
        #expect(abs(report.gradientNorm - labml.norm) <= 1e-5 * labml.norm)
        let entries = gradients.values.layout.entries
        #expect(Set(entries.map(\.name)) == Set(labml.gradients.keys))
        for (index, entry) in entries.enumerated() {
            let expected = LabmlGradients.numbers(try #require(labml.gradients[entry.name]))
            let values = gradients.values[index].map(Double.init)
            let distance = zip(values, expected).reduce(0.0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
            let norm = expected.reduce(0.0) { $0 + $1 * $1 }.squareRoot()
            let error = distance / (norm > 1e-9 * labml.norm ? norm : labml.norm)
            let allowed = try #require(labml.errors[entry.name])
            #expect(error <= 1.5 * max(allowed, 1e-7), "\(entry.name): \(error), PyTorch's \(allowed)")
        }
        let dropped = labml.routes.joined().count { $0 < 0 }
        #expect(abs(report.dropped - Double(dropped) / Double(labml.routes.joined().count)) < 1e-12)
    }

    @Test("Routers that choose for themselves choose as labml's do", arguments: ["plain", "unscaled", "many-experts"])
    func routes(name: String) throws {
        let labml = try LabmlGradients.load(name)
        let given = try labml.test(name).gradients()
        let own = try labml.test(name, routed: false).gradients()
        SameBitsTests.expectSame(given, own, "\(name)")
    }

    @Test("Steps of Adam with Noam's rates and clipping are labml's")
    func noam() throws {
        let labml = try JSONDecoder().decode(LabmlNoam.self, from: LabmlGradients.data("noam"))
        let configuration = try LabmlGradients.configuration("noam")
        let test = TrainingCase(name: "noam", configuration: configuration, batch: TrainingBatch([]))
        let weights = try test.weights()
        let layout = weights.layout
        let plan = OptimizerPlan.adam(AdamW.Settings())
        let optimizer = try plan.optimizer(of: layout)
        let schedule = try LearningRateSchedule(
            peak: 1,
            shape: .noam(width: configuration.modelWidth),
            warmUpSteps: labml.warmup,
            totalSteps: labml.steps
        )
        let pool = WorkPool(threads: 2)
        for step in 0..<labml.steps {
            let gradients = Gradients(layout: layout)
            for (index, entry) in layout.entries.enumerated() {
                // An expert without a token: labml has zeros, and so have tensors that nothing touched.
                if step == 1, entry.name.contains(".experts.1.") { continue }
                let seed = entry.name.utf8.reduce(UInt32(50 + step) &* 31) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
                for place in gradients.values[index].indices {
                    gradients.values[index][place] = Float(TrainingCase.number(place, seed: seed)) * 0.2
                }
                gradients.touched[index] = true
            }
            let norm = try GradientNorm.norm(of: gradients, scale: 1, pool: pool)
            #expect(abs(norm - labml.norms[step]) <= 1e-6 * norm)
            optimizer.step(
                weights: weights,
                gradients: gradients,
                learningRate: schedule.rate(at: step),
                gradientScale: GradientNorm.clipFactor(norm: norm, limit: 1),
                pool: pool
            )
        }
        for (index, entry) in layout.entries.enumerated() {
            let expected = LabmlGradients.numbers(try #require(labml.weights[entry.name]))
            let error = relativeError(weights[index].map(Double.init), expected)
            let allowed = try #require(labml.errors[entry.name])
            #expect(error <= 1.5 * max(allowed, 1e-7), "\(entry.name): \(error), PyTorch's \(allowed)")
        }
    }

    /// Wide enough that threads share the work, with dropout and dropped tokens.
    static func busy(_ change: (inout TrainingSettings) -> Void = { _ in }) throws -> TrainingCase {
        let json = """
            {"model_type": "labml_switch", "n_tokens": 70, "d_model": 48, "heads": 3, "d_ff": 70, "n_layers": 3,
             "n_experts": 5}
            """
        let configuration = try ModelConfiguration.load(contents: Array(json.utf8), name: "busy")
        let lengths = [33, 1, 40, 17, 25, 9].map { (input: $0, target: $0) }
        let examples = TrainingCase.examples(lengths, vocabulary: 70, seed: 5)
        var test = TrainingCase(name: "busy", configuration: configuration, batch: TrainingBatch(examples))
        test.settings.dropout = 0.1
        test.settings.capacity = .floor(1, .tokens)
        test.settings.seed = 77
        change(&test.settings)
        return test
    }

    @Test("Threads, parts, blocks that are computed again and the instruction set do not show in a step's bits")
    func sameBits() throws {
        let test = try Self.busy()
        let expected = try test.gradients()
        #expect(expected.0.dropped > 0)
        SameBitsTests.expectSame(expected, try test.gradients(threads: 3), "threads")
        SameBitsTests.expectSame(expected, try test.gradients(parts: [0..<1, 1..<4, 4..<6], threads: 2), "parts")
        SameBitsTests.expectSame(expected, try Self.busy { $0.recomputesBlocks = true }.gradients(), "recomputed")
        for level in KernelLevel.available {
            SameBitsTests.expectSame(expected, try test.gradients(threads: 2, level: level), "\(level.name)")
        }
    }

    @Test("In bfloat16 a step's loss is near that of float32")
    func bfloat16() throws {
        let exact = try Self.busy().gradients().0
        let rounded = try Self.busy { $0.precision = .bfloat16 }.gradients().0
        #expect(exact.loss != rounded.loss)
        #expect(abs(exact.loss - rounded.loss) < 0.02 * exact.loss)
    }

    @Test("Drawn drops leave an expert int(factor x tokens / experts) tokens, others in each step and of each seed")
    func draws() throws {
        let tokens = 125
        func report(_ order: DropOrder, step: Int, seed: UInt64 = 77) throws -> (StepReport, Gradients) {
            let test = try Self.busy {
                $0.capacity = .floor(0.9, order)
                $0.dropout = 0
                $0.seed = seed
            }
            return try test.gradients(threads: 2, step: step)
        }
        let first = try report(.drawn(seed: 1), step: 3)
        SameBitsTests.expectSame(first, try report(.drawn(seed: 1), step: 3), "the same draw")
        // The first layer's router sees the same, whatever is dropped.
        let places = Int(0.9 * Double(tokens) / 5)
        for other in [
            try report(.tokens, step: 3), try report(.drawn(seed: 1), step: 4), try report(.drawn(seed: 2), step: 3),
            try report(.drawn(seed: 1), step: 3, seed: 78),
        ] {
            #expect(other.0.layers[0].shares == first.0.layers[0].shares)
            #expect(other.0.layers[0].dropped == first.0.layers[0].dropped)
            #expect(other.0.loss != first.0.loss)
        }
        let sent = first.0.layers[0].shares.map { Int(($0 * Double(tokens)).rounded()) }
        let dropped = sent.reduce(0) { $0 + max(0, $1 - places) }
        #expect(dropped > 0)
        #expect(Int((first.0.layers[0].dropped * Double(tokens)).rounded()) == dropped)
    }

    @Test("A draw over parts, and inputs and targets of different lengths, are refused in words")
    func refusals() throws {
        let drawn = try Self.busy { $0.capacity = .floor(1, .drawn(seed: 0)) }
        let parts = #expect(throws: TrainingError.self) { try drawn.gradients(parts: [0..<2, 2..<6]) }
        #expect(parts?.message.contains("drawn among all") == true)
        var uneven = try Self.busy()
        uneven.batch.examples[1].target.append(3)
        let error = #expect(throws: TrainingError.self) { try uneven.gradients() }
        #expect(error?.message.contains("no encoder") == true)
    }

    @Test("Evaluation drops nothing where it is told so, and knows the right answers")
    func evaluation() throws {
        var test = try Self.busy()
        test.settings.evaluationCapacity = .unlimited
        let pool = WorkPool(threads: 2)
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: pool)
        let report = try step.evaluate(test.batch, weights: try test.weights())
        #expect(report.dropped == 0)
        #expect(report.inputTokens == 0 && report.targetTokens == 125)
        #expect(report.layers.count == 3)
        #expect(report.layers.allSatisfy { $0.certainty > 0.2 && $0.certainty < 1 })
        #expect((0...125).contains(try #require(report.correctTokens)))
    }

    @Test("New weights have PyTorch's distributions, and layers and experts begin as copies of the first")
    func initialisation() throws {
        let json = """
            {"model_type": "labml_switch", "n_tokens": 90, "d_model": 64, "heads": 4, "d_ff": 100, "n_layers": 2,
             "n_experts": 3}
            """
        let configuration = try ModelConfiguration.load(contents: Array(json.utf8), name: "new")
        let weights = ParameterBuffer(layout: try ParameterLayout(configuration))
        try Initialisation.labml.fill(weights, keyWidth: 16, seed: 5, pool: WorkPool(threads: 2))
        for (index, entry) in weights.layout.entries.enumerated() {
            let values = weights[index].map(Double.init)
            let largest = values.map(abs).max() ?? 0
            let deviation = (values.reduce(0.0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
            if entry.name == "src_embed.weight" {
                #expect(abs(deviation - 1) < 0.05)
            } else if entry.name.contains("norm") {
                #expect(values.allSatisfy { $0 == (entry.name.hasSuffix(".bias") ? 0 : 1) }, "\(entry.name)")
            } else {
                // torch.nn.Linear: uniform within fan-in^-0.5, biases too.
                let bound = 1 / (entry.name.contains("layer2") ? 100.0 : 64).squareRoot()
                #expect(largest <= bound && largest > 0.5 * bound, "\(entry.name)")
                if values.count >= 1000 {
                    #expect(abs(deviation / bound - 1 / 3.0.squareRoot()) < 0.02, "\(entry.name)")
                }
            }
        }
        func tensor(_ name: String) throws -> [Float] {
            let index = try #require(weights.layout.entries.firstIndex { $0.name == name }, "\(name)")
            return Array(weights[index])
        }
        let layers = (0..<2).map { "transformer.layers.\($0)." }
        let query = "attn.query.linear.weight"
        #expect(try tensor(layers[0] + query) == tensor(layers[1] + query))
        #expect(try tensor(layers[0] + query) != tensor(layers[0] + "attn.key.linear.weight"))
        let first = try tensor(layers[0] + "feed_forward.experts.0.layer1.bias")
        #expect(try first == tensor(layers[1] + "feed_forward.experts.2.layer1.bias"))
    }
}
