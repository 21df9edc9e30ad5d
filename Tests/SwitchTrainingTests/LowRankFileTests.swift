// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("LoRA's files")
struct LowRankFileTests {
    private func withFolder(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "adapter-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder.path)
    }

    /// The keys that say what an adapter computes.
    private struct Configuration: Decodable, Equatable {
        var peftType: String
        var taskType: String
        var r: Int
        var loraAlpha: Double
        var loraDropout: Double
        var useRslora: Bool
        var bias: String
        var fanInFanOut: Bool
        var inferenceMode: Bool
        var initLoraWeights: Bool
        var targetModules: Set<String>
        var baseModelNameOrPath: String?
    }

    private func configuration(_ folder: String) throws -> Configuration {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(
            Configuration.self,
            from: Data(contentsOf: URL(filePath: "\(folder)/adapter_config.json"))
        )
    }

    private func tensors(_ folder: String) throws -> [String: TensorView] {
        let views = try SafetensorsFile.read("\(folder)/\(AdapterFiles.weightsName)")
        return Dictionary(uniqueKeysWithValues: views.map { ($0.name, $0) })
    }

    @Test("Files are those that peft writes", arguments: try TorchGradients.names(in: TorchGradients.adapters))
    func files(name: String) throws {
        let test = try LowRankGradientTests.load(name).1
        let peft = TorchGradients.adapters.appending(path: name).path
        try self.withFolder { folder in
            try test.adapter.write(to: folder, base: "a \"model\"")
            let (ours, theirs) = (try self.tensors(folder), try self.tensors(peft))
            #expect(Set(ours.keys) == Set(theirs.keys))
            for (key, tensor) in theirs {
                let own = try #require(ours[key])
                #expect(own.dtype == tensor.dtype && own.shape == tensor.shape)
                #expect(own.withUnsafeBytes { Array($0) } == tensor.withUnsafeBytes { Array($0) }, "\(key)")
            }
            var expected = try self.configuration(peft)
            expected.baseModelNameOrPath = "a \"model\""
            #expect(try self.configuration(folder) == expected)
        }
    }

    @Test("What was written or saved by peft is restored bit for bit")
    func restored() throws {
        let test = try LowRankGradientTests.load("lora-experts").1
        let other = try LowRankAdapter(test.base, settings: test.adapter.settings, seed: 2)
        try other.restore(from: TorchGradients.adapters.appending(path: "lora-experts").path)
        #expect(sameBits(other.weights, test.adapter.weights))
        var settings = test.adapter.settings
        settings.targets = ["*.wi", "*expert_?.wo", "*.wo"]
        #expect(throws: TrainingError.self) { try LowRankAdapter(test.base, settings: settings, seed: 2) }
        settings.targets = ["*.wi", "*.wo"]
        let byPattern = try LowRankAdapter(test.base, settings: settings, seed: 3)
        try byPattern.restore(from: TorchGradients.adapters.appending(path: "lora-experts").path)
        #expect(sameBits(byPattern.weights, test.adapter.weights))
        try self.withFolder { folder in
            try byPattern.write(to: folder, base: "base")
            let again = try LowRankAdapter(test.base, settings: settings, seed: 4)
            try again.restore(from: folder)
            #expect(sameBits(again.weights, test.adapter.weights))
            #expect(try self.configuration(folder).targetModules.count == byPattern.layout.entries.count / 2)
        }
    }

    @Test("An adapter that does not fit is refused, and nothing changes")
    func refused() throws {
        let test = try LowRankGradientTests.load("lora-experts").1
        let peft = TorchGradients.adapters.appending(path: "lora-experts").path
        let changes: [(CheckpointError.Code, String, (inout LowRankSettings) -> Void)] = [
            (.invalidArgument, "is an adapter of rank 3", { $0.rank = 4 }),
            (.invalidArgument, "scale", { $0.isRankStabilized = false }),
            (.unknownTensor, "changes a matrix that the targets do not name", { $0.targets = ["wi"] }),
            (.missingTensor, "is not in the adapter", { $0.targets = ["wi", "wo", "q"] }),
        ]
        for (code, text, change) in changes {
            var settings = test.adapter.settings
            change(&settings)
            let adapter = try LowRankAdapter(test.base, settings: settings, seed: 5)
            let same = try LowRankAdapter(test.base, settings: settings, seed: 5)
            let error = #expect(throws: CheckpointError.self) { try adapter.restore(from: peft) }
            #expect(error?.code == code)
            #expect(error?.message.contains(text) == true, "\(error?.message ?? "")")
            #expect(sameBits(adapter.weights, same.weights))
        }
        let wide = ModelGradientTests.make("wide") { _ in
        } _: {
            $0.feedForwardWidth = 9
        }
        var settings = test.adapter.settings
        settings.targets = ["wi"]
        let adapter = try LowRankAdapter(try wide.weights(), settings: settings, seed: 5)
        try self.withFolder { folder in
            try adapter.write(to: folder, base: "base")
            let narrow = ModelGradientTests.make("narrow")
            let other = try LowRankAdapter(try narrow.weights(), settings: settings, seed: 5)
            let error = #expect(throws: CheckpointError.self) { try other.restore(from: folder) }
            #expect(error?.code == .wrongShape)
            #expect(throws: CheckpointError.self) { try adapter.write(to: folder, base: "base") }
        }
        let error = #expect(throws: CheckpointError.self) {
            try adapter.restore(from: ParameterTests.adapterFixtures + "/patterns/adapter")
        }
        #expect(error?.code == .unsupported)
    }

    @Test("The merged checkpoint has the bits that were trained with")
    func merged() throws {
        let checkpoint = try Checkpoint.open(ParameterTests.miniature)
        let layout = try ParameterLayout(checkpoint.configuration)
        let weights = try ParameterBuffer.load(checkpoint, layout: layout)
        var settings = LowRankSettings()
        settings.rank = 3
        settings.alpha = 5
        settings.targets = ["decoder.*.q", "*.expert_1.wo", "encoder.block.1.layer.1.mlp.router.classifier"]
        let adapter = try LowRankAdapter(weights, settings: settings, seed: 11)
        for index in adapter.weights.all.indices where adapter.weights.all[index] == 0 {
            adapter.weights.all[index] = Float(TrainingCase.number(index, seed: 9))
        }
        try self.withFolder { folder in
            try FileManager.default.copyItem(
                atPath: ParameterTests.miniature + "/config.json",
                toPath: folder + "/config.json"
            )
            // In float32, so that merging rounds nothing.
            try SafetensorsWriter.write(
                try weights.tensors(),
                to: folder + "/model.safetensors",
                metadata: ["format": "pt"]
            )
            try FileManager.default.createDirectory(atPath: "\(folder)/adapter", withIntermediateDirectories: true)
            try adapter.write(to: "\(folder)/adapter", base: "base")
            let merged = try Checkpoint.open(folder, adapter: "\(folder)/adapter")
            try merged.validate()
            let read = try ParameterBuffer.load(merged, layout: layout)
            #expect(!sameBits(read, weights))
            adapter.apply(to: weights, pool: WorkPool(threads: 2))
            #expect(sameBits(read, weights))
            // A save with its adapter in a folder of its own opens as a model.
            _ = try Checkpoint.open(folder)
        }
    }
}
