// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Upcycling")
struct UpcyclingTests {
    private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Fixtures")

    private static func dense(_ name: String) -> String { Self.fixtures.appending(path: "dense/\(name)").path }

    /// Runs a body with a name for a folder that does not exist, and removes it afterwards.
    private func withOutput(_ body: (String) throws -> Void) throws {
        let output = FileManager.default.temporaryDirectory.appending(path: "upcycled-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: output) }
        try body(output)
    }

    /// The logits of a few target tokens.
    private func logits(_ directory: String) throws -> [Float] {
        let checkpoint = try Checkpoint.open(directory)
        try checkpoint.validate()
        let pool = WorkPool(threads: 1)
        let model = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
        let experts = try LocalExperts(checkpoint: checkpoint, pool: pool)
        var record = RoutingRecord()
        let options = StepOptions(logits: .all)
        let encoded = try model.encode([[9, 33, 7, 120, 1]], experts: experts, options: options, record: &record)
        let row = DecoderInput(cache: DecoderCache(encoded[0]), tokens: [0, 12, 50])
        let logits = try model.decode([row], experts: experts, options: options, record: &record)
        return [Float](UnsafeBufferPointer(start: logits.pointer, count: logits.rows * logits.columns))
    }

    @Test(
        "with undecided routers the compensated model computes the dense one's bits",
        arguments: ["t5", "t5-v1_1", "mt5"],
        [4, 8]
    )
    func compensated(name: String, experts: Int) throws {
        try self.withOutput { output in
            var settings = Upcycling(expertCount: experts)
            // Of three blocks, transformers cannot say every second one.
            settings.encoderSparseStep = name == "t5-v1_1" ? 3 : 2
            try settings.write(model: Self.dense(name), output: output, router: { Array(repeating: 0, count: $1) })
            let expected = try self.logits(Self.dense(name))
            #expect(try self.logits(output).map(\.bitPattern) == expected.map(\.bitPattern))
        }
    }

    @Test("plain experts are exact copies, and the model is another one until it is trained")
    func plain() throws {
        try self.withOutput { output in
            var settings = Upcycling(expertCount: 3)
            settings.scale = .plain
            settings.encoderSparseStep = 1
            let draws = WeightDraws(seed: 4)
            let written = try settings.write(
                model: Self.dense("t5"),
                output: output,
                router: { draws.normal(count: $1, name: $0, deviation: Upcycling.routerDeviation) }
            )
            #expect(written.sparseLayers.count == 3)
            // transformers refuses whole numbers where it wants others.
            let text = try String(contentsOfFile: output + "/config.json", encoding: .utf8)
            #expect(text.contains("\"initializer_factor\": 1.0,") && text.contains("\"dropout_rate\": 0.1,"))
            #expect(
                text.contains("\"num_sparse_encoder_layers\": 2,") && text.contains("\"router_dtype\": \"float32\"")
            )
            let dense = try Checkpoint.open(Self.dense("t5"))
            let sparse = try Checkpoint.open(output)
            for layer in sparse.configuration.sparseLayers {
                for matrix in sparse.configuration.feedForwardMatrices {
                    let source = try dense.tensor(.dense(layer.stack, block: layer.block, matrix))
                    let bytes = source.withUnsafeBytes { Array($0) }
                    for expert in 0..<3 {
                        let copy = try sparse.tensor(.expert(layer, expert: expert, matrix))
                        #expect(copy.withUnsafeBytes { Array($0) } == bytes)
                    }
                }
                let router = try sparse.tensor(.router(layer))
                let values = router.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
                #expect(values.allSatisfy { abs($0) < 0.12 } && Set(values).count > values.count - 3)
            }
            #expect(try self.logits(output) != (try self.logits(Self.dense("t5"))))
        }
    }

    @Test("a narrow type does not overflow: float16 experts that are multiplied become float32")
    func float16() throws {
        try self.withOutput { folder in
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            for (name, file) in [("t5-v1_1", "config.json"), ("float16", "model.safetensors")] {
                try FileManager.default.copyItem(atPath: "\(Self.dense(name))/\(file)", toPath: "\(folder)/\(file)")
            }
            var settings = Upcycling(expertCount: 2)
            settings.encoderSparseStep = 1
            try settings.write(model: folder, output: folder + "/out", router: { Array(repeating: 0, count: $1) })
            let layer = SparseLayer(stack: .encoder, block: 1)
            let sparse = try Checkpoint.open(folder + "/out")
            #expect(try sparse.tensor(.expert(layer, expert: 1, .wo)).dtype == .float32)
            #expect(try sparse.tensor(.expert(layer, expert: 1, .wi0)).dtype == .float16)
            #expect(try self.logits(folder + "/out").map(\.bitPattern) == (try self.logits(folder)).map(\.bitPattern))
        }
    }

    @Test("what cannot become a Switch Transformer is refused, and nothing is left behind")
    func refused() throws {
        func refusal(_ model: String, _ change: (inout Upcycling) -> Void = { _ in }) throws -> CheckpointError? {
            var error: CheckpointError?
            try self.withOutput { output in
                var settings = Upcycling()
                change(&settings)
                error = #expect(throws: CheckpointError.self) {
                    try settings.write(model: model, output: output, router: { Array(repeating: 0, count: $1) })
                }
                #expect(!FileManager.default.fileExists(atPath: output))
            }
            return error
        }
        let t5 = Self.dense("t5")
        #expect(try refusal(t5) { $0.expertCount = 1 }?.message.contains("2 through 4096") == true)
        #expect(try refusal(t5) { $0.encoderSparseStep = 3 }?.message.contains("steps 1, 2") == true)
        #expect(try refusal(t5) { $0.decoderSparseStep = 0 }?.code == .invalidArgument)
        #expect(try refusal(t5) { $0.expertCapacity = 0 }?.code == .invalidArgument)
        #expect(try refusal(ParameterTests.miniature)?.message.contains("has experts already") == true)
        #expect(try refusal(Self.dense("encoder-alone"))?.code == .unsupported)
        #expect(try refusal("/nowhere/at/all")?.code == .notFound)
    }

    @Test("an output that is there is not replaced")
    func outputExists() throws {
        try self.withOutput { output in
            try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
            try Data("mine".utf8).write(to: URL(filePath: output + "/mine"))
            let error = #expect(throws: CheckpointError.self) {
                try Upcycling()
                    .write(model: Self.dense("t5"), output: output, router: { Array(repeating: 0, count: $1) })
            }
            #expect(error?.code == .outputExists)
            #expect(try FileManager.default.contentsOfDirectory(atPath: output) == ["mine"])
        }
    }
}
