// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import Testing

@testable import SwitchTraining

/// What `make_training_cases.py` wrote.
struct TorchGradients: Decodable {
    struct Settings: Decodable {
        var labelSmoothing: Double?
        var softmaxZ: Double?
        var balance: Double?
        var routerZ: Double?
        var routerLosses: String?
        var teacher: Teacher?
    }

    /// A teacher whose answers are a function of a seed.
    struct Teacher: Decodable {
        var kept: Int
        var weight: Double
        var temperature: Double
    }

    struct Model: Decodable {
        var vocabSize: Int
        var dModel: Int
        var dKv: Int
        var dFf: Int
        var numHeads: Int
        var numLayers: Int
        var numDecoderLayers: Int
        var numExperts: Int?
        var encoderSparseStep: Int?
        var decoderSparseStep: Int?
        var expertCapacity: Int?
        var tieWordEmbeddings: Bool?
        var routerBias: Bool?
        var denseActFn: String?
        var feedForwardProj: String?
    }

    /// peft's settings of an adapter.
    struct Adapter: Decodable {
        var r: Int
        var loraAlpha: Double
        var useRslora: Bool?
        var targetModules: Targets

        /// A list of names, or one word.
        enum Targets: Decodable {
            case names([String])
            case word(String)

            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                if let word = try? container.decode(String.self) {
                    self = .word(word)
                } else {
                    self = .names(try container.decode([String].self))
                }
            }
        }
    }

    var family: String
    var settings: Settings
    var lora: Adapter?
    var model: Model
    var lengths: [[Int]]
    var loss: Double
    var lossError: Double
    /// Norm and four projections of each tensor's gradient.
    var gradients: [String: [Double]]
    var errors: [String: Double]
    var routes: [String: [Int32]]

    static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/gradients")

    static let adapters = Self.folder.deletingLastPathComponent().appending(path: "lora")

    static func names(in folder: URL = Self.folder) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path)
            .filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
    }

    static func load(_ name: String, in folder: URL = Self.folder) throws -> TorchGradients {
        let data = try Data(contentsOf: folder.appending(path: "\(name).json"))
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(TorchGradients.self, from: data)
    }

    private var configuration: ModelConfiguration {
        var result = ModelConfiguration(
            vocabularySize: self.model.vocabSize,
            modelWidth: self.model.dModel,
            keyWidth: self.model.dKv,
            feedForwardWidth: self.model.dFf,
            headCount: self.model.numHeads,
            encoderBlocks: self.model.numLayers,
            decoderBlocks: self.model.numDecoderLayers,
            encoderSparseStep: self.model.encoderSparseStep ?? 0,
            decoderSparseStep: self.model.decoderSparseStep ?? 0,
            expertCount: self.model.numExperts ?? 0,
            expertCapacity: self.model.expertCapacity ?? 0,
            routerBias: self.model.routerBias ?? false,
            tiedEmbeddings: self.model.tieWordEmbeddings ?? true
        )
        let projection = self.model.feedForwardProj ?? "relu"
        result.family = self.family == "t5" ? .t5 : .switchTransformers
        result.gatedFeedForward = projection.hasPrefix("gated-")
        switch self.model.denseActFn ?? String(projection.split(separator: "-").last ?? "relu") {
        // A gated gelu is the approximation in T5, a plain name is the function itself.
        case "gelu": result.activation = result.gatedFeedForward ? .geluTanh : .gelu
        case let name: result.activation = ModelConfiguration.Activation(rawValue: name) ?? .relu
        }
        return result
    }

    func test(named name: String, routed: Bool = true) -> TrainingCase {
        var settings = TrainingSettings()
        settings.labelSmoothing = self.settings.labelSmoothing ?? 0
        settings.softmaxZ = self.settings.softmaxZ ?? 0
        settings.balance = self.settings.balance ?? 0.01
        settings.routerZ = self.settings.routerZ ?? 0
        settings.routerLosses = self.settings.routerLosses == "transformers" ? .transformers : .paper
        settings.capacity = .checkpoint
        let lengths = self.lengths.map { (input: $0[0], target: $0[1]) }
        let examples = TrainingCase.examples(lengths, vocabulary: self.model.vocabSize, seed: 5)
        var routes: [SparseLayer: [Int32]] = [:]
        for layer in self.configuration.sparseLayers { routes[layer] = self.routes["\(layer)"] }
        let test = TrainingCase(
            name: name,
            configuration: self.configuration,
            settings: settings,
            batch: TrainingBatch(examples, routes: routed ? routes : nil)
        )
        guard let teacher = self.settings.teacher else { return test }
        return test.taught(kept: teacher.kept, weight: teacher.weight, temperature: teacher.temperature)
    }
}

@Suite("Gradients against PyTorch's on transformers' modules")
struct GradientParityTests {
    @Test("The float64 reference is PyTorch's float64 to 1e-9", arguments: try TorchGradients.names())
    func reference(name: String) throws {
        let torch = try TorchGradients.load(name)
        let test = torch.test(named: name)
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: try test.weights())
        let loss = reference.loss(test.batch)
        reference.tape.backward(loss)
        #expect(abs(loss.data[0] - torch.loss) <= 1e-9 * abs(torch.loss))
        for (tensor, expected) in torch.gradients {
            let gradient = try #require(reference.parameters[tensor]?.gradient, "\(tensor)")
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

    @Test("No tensor is further from float64 than 1.5 times PyTorch's float32", arguments: try TorchGradients.names())
    func error(name: String) throws {
        let torch = try TorchGradients.load(name)
        let test = torch.test(named: name)
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: try test.weights())
        reference.tape.backward(reference.loss(test.batch))
        let (report, gradients) = try test.gradients(threads: 2)
        #expect(abs(report.loss - torch.loss) <= 1e-6 * abs(torch.loss))
        for (index, entry) in gradients.values.layout.entries.enumerated() {
            guard let allowed = torch.errors[entry.name] else {
                // An expert without a token: PyTorch has no gradient, and neither have we.
                #expect(!gradients.touched[index], "\(entry.name)")
                continue
            }
            #expect(gradients.touched[index], "\(entry.name)")
            let expected = try #require(reference.parameters[entry.name]?.gradient)
            let error = relativeError(gradients.values[index].lazy.map(Double.init), expected)
            #expect(error <= 1.5 * max(allowed, 1e-7), "\(entry.name): \(error), PyTorch's \(allowed)")
        }
    }

    @Test(
        "Routers that choose for themselves choose as PyTorch's do",
        arguments: ["plain", "capacity", "many-experts"]
    )
    func routes(name: String) throws {
        let torch = try TorchGradients.load(name)
        let (given, expected) = try torch.test(named: name).gradients()
        let (own, gradients) = try torch.test(named: name, routed: false).gradients()
        #expect(given.loss == own.loss)
        #expect(gradients.values.all.elementsEqual(expected.values.all))
        if name == "capacity" { #expect(own.dropped > 0) }
    }
}
