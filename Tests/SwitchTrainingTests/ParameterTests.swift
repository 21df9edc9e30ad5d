// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchTraining
import SwitchyardTypes
import Testing

@Suite("Parameters")
struct ParameterTests {
    /// The folder of the model in this repository.
    static let miniature = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "deploy/models/switch-mini").path

    /// The adapters that peft made.
    static let adapterFixtures = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Fixtures/adapters").path

    static func tiny(_ change: (inout ModelConfiguration) -> Void = { _ in }) -> ModelConfiguration {
        var configuration = ModelConfiguration(
            vocabularySize: 11,
            modelWidth: 6,
            keyWidth: 2,
            feedForwardWidth: 5,
            headCount: 3,
            encoderBlocks: 2,
            decoderBlocks: 2,
            encoderSparseStep: 2,
            decoderSparseStep: 2,
            expertCount: 3
        )
        change(&configuration)
        return configuration
    }

    static let variants: [ModelConfiguration] = [
        Self.tiny(),
        Self.tiny { $0.tiedEmbeddings = false },
        Self.tiny { $0.gatedFeedForward = true },
        Self.tiny { $0.routerBias = true },
        Self.tiny {
            $0.family = .t5
            $0.encoderSparseStep = 0
            $0.decoderSparseStep = 0
            $0.expertCount = 0
        },
        Self.tiny { $0.encoderSparseStep = 1 },
    ]

    @Test("Every parameter has one aligned place", arguments: Self.variants)
    func places(configuration: ModelConfiguration) throws {
        let layout = try ParameterLayout(configuration)
        #expect(layout.parameterCount == configuration.parameterCount)
        var end = 0
        for (index, entry) in layout.entries.enumerated() {
            #expect(entry.range.lowerBound % ParameterLayout.alignment == 0)
            #expect(entry.range.lowerBound >= end)
            #expect(entry.range.lowerBound - end < ParameterLayout.alignment)
            #expect(entry.range.count == entry.shape.reduce(1, *))
            #expect(layout.index(of: entry.role) == index)
            end = entry.range.upperBound
        }
        #expect(layout.count >= end)
        #expect(Set(layout.entries.map(\.name)).count == layout.entries.count)
        #expect((layout.index(of: .lmHead) == nil) == configuration.tiedEmbeddings)
    }

    @Test("Names are those of the model's family")
    func names() throws {
        let t5 = try ParameterLayout(Self.variants[4])
        #expect(t5.entries.contains { $0.name == "encoder.block.0.layer.1.DenseReluDense.wi.weight" })
        let gated = try ParameterLayout(Self.variants[2])
        let expert = "decoder.block.1.layer.2.mlp.experts.expert_2.wi_1.weight"
        let entry = try #require(gated.entries.first { $0.name == expert })
        #expect(entry.kind == .expert(SparseLayer(stack: .decoder, block: 1), 2))
        #expect(entry.shape == [5, 6])
    }

    @Test("A model beyond all memory is refused")
    func tooLarge() throws {
        let error = #expect(throws: TrainingError.self) {
            try ParameterLayout(Self.tiny { $0.feedForwardWidth = 1 << 40 })
        }
        #expect(error?.code == .limitExceeded)
    }

    @Test("Weights written are the weights read", arguments: [false, true])
    func roundTrip(bfloat16: Bool) throws {
        let checkpoint = try Checkpoint.open(Self.miniature)
        let layout = try ParameterLayout(checkpoint.configuration)
        let weights = try ParameterBuffer.load(checkpoint, layout: layout)
        let folder = FileManager.default.temporaryDirectory.appending(path: "parameters-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        if !bfloat16 {
            // Numbers that no narrower type holds.
            for (index, _) in weights.all.enumerated() where index % 7 == 0 { weights.all[index] += 0x1p-20 }
            for (index, entry) in layout.entries.enumerated() {
                let next = index + 1 < layout.entries.count ? layout.entries[index + 1].range.lowerBound : layout.count
                for gap in entry.range.upperBound..<next { weights.all[gap] = 0 }
            }
        }
        try FileManager.default.copyItem(
            atPath: Self.miniature + "/config.json",
            toPath: folder.path + "/config.json"
        )
        try SafetensorsWriter.write(
            try weights.tensors(bfloat16: bfloat16),
            to: folder.path + "/model.safetensors",
            metadata: ["format": "pt"]
        )
        let again = try Checkpoint.open(folder.path)
        try again.validate()
        // The miniature's weights are bfloat16, so that rounding loses nothing.
        let read = try ParameterBuffer.load(again, layout: layout)
        #expect(weights.all.elementsEqual(read.all) { $0.bitPattern == $1.bitPattern })
    }

    @Test("Gradients begin and end as zeros")
    func gradients() throws {
        let gradients = Gradients(layout: try ParameterLayout(Self.tiny()))
        gradients.touched[3] = true
        gradients.values[3][0] = 1
        gradients.clear()
        #expect(gradients.values.all.allSatisfy { $0 == 0 })
        #expect(!gradients.touched.contains(true))
    }
}
