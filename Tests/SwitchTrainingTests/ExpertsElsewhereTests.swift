// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Experts that are computed elsewhere")
struct ExpertsElsewhereTests {
    /// A model on disk, whose experts' weights bfloat16 holds exactly, and the same in memory.
    private final class Model {
        let folder: String
        let test: TrainingCase
        let weights: ParameterBuffer
        let checkpoint: Checkpoint

        init(activation: String, width: Int = 70) throws {
            self.folder = NSTemporaryDirectory() + "experts-elsewhere-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
            let json = """
                {"model_type": "switch_transformers", "vocab_size": 150, "d_model": 48, "d_kv": 16, "d_ff": \(width),
                 "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1,
                 "num_sparse_decoder_layers": 1, "num_experts": 4, "expert_capacity": 64, "decoder_start_token_id": 0,
                 "eos_token_id": 1, "pad_token_id": 0, "feed_forward_proj": "\(activation)", "tie_word_embeddings": true}
                """
            try json.write(toFile: self.folder + "/config.json", atomically: true, encoding: .utf8)
            let configuration = try ModelConfiguration.load(directory: self.folder)
            let lengths = [(33, 20), (1, 3), (40, 1), (17, 29), (25, 25), (9, 30)].map { (input: $0.0, target: $0.1) }
            let examples = TrainingCase.examples(lengths, vocabulary: 150, seed: 5)
            var test = TrainingCase(name: activation, configuration: configuration, batch: TrainingBatch(examples))
            test.settings.dropout = 0.1
            test.settings.expertDropout = 0
            test.settings.jitter = 0.02
            test.settings.balance = 0.1
            test.settings.capacity = .factor(1)
            self.test = test
            self.weights = try test.weights()
            for (index, entry) in self.weights.layout.entries.enumerated() {
                guard case .expert = entry.kind else { continue }
                for place in self.weights[index].indices {
                    let bits = self.weights[index][place].bitPattern
                    self.weights[index][place] = Float(bitPattern: bits & 0xFFFF_0000)
                }
            }
            try SafetensorsWriter.write(try self.weights.tensors(), to: self.folder + "/model.safetensors")
            self.checkpoint = try Checkpoint.open(self.folder)
        }

        deinit { try? FileManager.default.removeItem(atPath: self.folder) }

        func experts(_ storage: WeightStorage = .float32, threads: Int = 1) throws -> LocalExperts {
            try LocalExperts(checkpoint: self.checkpoint, pool: WorkPool(threads: threads), storage: storage)
        }

        /// A step's report and gradients, without the experts' own.
        func gradients(
            _ experts: (any TrainingExperts)? = nil,
            parts: [Range<Int>]? = nil,
            threads: Int = 2,
            recomputes: Bool = false
        ) throws -> (StepReport, Gradients) {
            var settings = self.test.settings
            settings.recomputesBlocks = recomputes
            let step = try TrainingStep(
                self.test.configuration,
                settings: settings,
                pool: WorkPool(threads: threads),
                experts: experts.map { .frozen($0) } ?? .here
            )
            let gradients = Gradients(layout: step.layout, wanted: step.layout.outsideExperts)
            var batch = self.test.batch
            if let parts { batch.parts = parts }
            return (try step.gradients(batch, weights: self.weights, into: gradients, step: 3), gradients)
        }
    }

    /// Asks for every row by itself, the last one first.
    private struct RowByRow: TrainingExperts {
        let experts: LocalExperts

        private func each(
            _ groups: [ExpertRows],
            _ tokens: FloatMatrix,
            _ body: (_ expert: Int, _ offset: Int, _ result: UnsafeMutablePointer<Float>) throws -> Void
        ) rethrows -> FloatMatrix {
            let result = FloatMatrix(rows: tokens.rows, columns: tokens.columns)
            let owners = groups.flatMap { group in Array(repeating: group.expert, count: group.rows) }
            for row in (0..<tokens.rows).reversed() {
                try body(owners[row], row * tokens.columns, result.pointer + row * tokens.columns)
            }
            return result
        }

        func forward(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix) throws -> FloatMatrix {
            try self.each(groups, tokens) { expert, offset, result in
                let group = [ExpertRows(expert: expert, rows: 1)]
                try self.experts.forward(layer: layer, groups: group, tokens: tokens.pointer + offset, outputs: result)
            }
        }

        func backward(
            _ layer: SparseLayer,
            groups: [ExpertRows],
            tokens: FloatMatrix,
            outputGradients: FloatMatrix
        ) throws -> FloatMatrix {
            try self.each(groups, tokens) { expert, offset, result in
                try self.experts.backward(
                    layer: layer,
                    groups: [ExpertRows(expert: expert, rows: 1)],
                    tokens: tokens.pointer + offset,
                    outputGradients: outputGradients.pointer + offset,
                    inputGradients: result
                )
            }
        }
    }

    /// Fails in one direction.
    private struct Failing: TrainingExperts {
        struct Gone: Error, CustomStringConvertible {
            var description: String { "the hosts are gone" }
        }
        let experts: LocalExperts
        let inForward: Bool

        func forward(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix) throws -> FloatMatrix {
            if self.inForward { throw Gone() }
            return try self.experts.forward(layer, groups: groups, tokens: tokens)
        }

        func backward(
            _ layer: SparseLayer,
            groups: [ExpertRows],
            tokens: FloatMatrix,
            outputGradients: FloatMatrix
        ) throws -> FloatMatrix {
            throw Gone()
        }
    }

    @Test(
        "Packed experts give a trainer's own bits, whatever they are packed in and however many threads they have",
        arguments: ["relu", "gated-relu", "gelu", "gated-gelu", "gated-silu"]
    )
    func sameBits(activation: String) throws {
        let model = try Model(activation: activation)
        let own = try model.gradients()
        #expect(own.0.dropped > 0)
        for (index, entry) in own.1.values.layout.entries.enumerated() {
            if case .expert = entry.kind { #expect(!own.1.touched[index]) }
        }
        for storage in [WeightStorage.float32, .bfloat16] {
            for threads in [1, 3] {
                let elsewhere = try model.gradients(try model.experts(storage, threads: threads))
                SameBitsTests.expectSame(own, elsewhere, "\(activation), \(storage), \(threads) threads")
            }
        }
        let parts = [0..<1, 1..<4, 4..<6]
        SameBitsTests.expectSame(own, try model.gradients(try model.experts(), parts: parts), "parts")
        SameBitsTests.expectSame(own, try model.gradients(try model.experts(), recomputes: true), "recomputed")
        SameBitsTests.expectSame(own, try model.gradients(RowByRow(experts: try model.experts())), "row by row")
    }

    @Test("Hidden rows whose stride is wider than they are give the same bits")
    func wide() throws {
        let model = try Model(activation: "gated-gelu", width: 512)
        SameBitsTests.expectSame(try model.gradients(), try model.gradients(try model.experts(threads: 2)), "wide")
    }

    @Test("Gradients are those that a trainer computes when it trains its experts too")
    func trained() throws {
        let model = try Model(activation: "relu")
        let all = try model.test.gradients()
        let frozen = try model.test.gradients(wanted: all.1.values.layout.outsideExperts)
        for (index, entry) in all.1.values.layout.entries.enumerated() {
            if case .expert = entry.kind { continue }
            #expect(all.1.values[index].elementsEqual(frozen.1.values[index]), "\(entry.name)")
        }
        #expect(all.0.gradientNorm > frozen.0.gradientNorm)
    }

    @Test("An optimizer of what is outside experts makes the same weights, and keeps nothing of experts")
    func optimizer() throws {
        let model = try Model(activation: "relu")
        let (report, gradients) = try model.gradients()
        let layout = gradients.values.layout
        #expect(layout.withoutExperts.entries.allSatisfy { entry in layout.entries.contains(entry) })
        #expect(layout.withoutExperts.entries.count == layout.outsideExperts.filter { $0 }.count)
        func weights(_ optimizer: any Optimizer) throws -> (ParameterBuffer, [String]) {
            let weights = ParameterBuffer(layout: layout)
            weights.copy(from: model.weights)
            optimizer.step(
                weights: weights,
                gradients: gradients,
                learningRate: 1e-2,
                gradientScale: 1 / report.gradientNorm,
                pool: WorkPool(threads: 2)
            )
            return (weights, try optimizer.state().map(\.name))
        }
        var scaled = AdamW.Settings()
        scaled.scaleParameter = true
        for (whole, part) in [
            (try AdamW(layout: layout, settings: scaled), try AdamW(layout: layout.withoutExperts, settings: scaled)),
            (try Adafactor(layout: layout), try Adafactor(layout: layout.withoutExperts)),
        ] as [(any Optimizer, any Optimizer)] {
            let (expected, given) = (try weights(whole), try weights(part))
            #expect(expected.0.all.elementsEqual(given.0.all) { $0.bitPattern == $1.bitPattern })
            #expect(!expected.0.all.elementsEqual(model.weights.all))
            #expect(expected.1.contains { $0.contains("expert_") } && !given.1.contains { $0.contains("expert_") })
        }
    }

    @Test("A failure ends the step with its words, and the next step is a step as any other", arguments: [true, false])
    func failure(inForward: Bool) throws {
        let model = try Model(activation: "relu")
        let experts = try model.experts()
        let error = #expect(throws: TrainingError.self) {
            try model.gradients(Failing(experts: experts, inForward: inForward))
        }
        #expect(error?.code == .noExperts)
        #expect(error?.message == "the hosts are gone")
    }

    @Test("Settings that need the experts' hidden rows are refused by name")
    func settings() throws {
        let model = try Model(activation: "relu")
        let experts = try model.experts()
        for (word, change) in [
            ("expertDropout", { $0.expertDropout = 0.4 }),
            ("expertDropout", { ($0.expertDropout, $0.dropout) = (nil, 0.1) }),
            ("precision", { $0.precision = .bfloat16 }),
        ] as [(String, (inout TrainingSettings) -> Void)] {
            var settings = model.test.settings
            change(&settings)
            let error = #expect(throws: TrainingError.self) {
                try TrainingStep(
                    model.test.configuration,
                    settings: settings,
                    pool: WorkPool(threads: 1),
                    experts: .frozen(experts)
                )
            }
            #expect(error?.code == .invalidSettings)
            #expect(error?.message.contains(word) == true)
        }
    }

    @Test("Experts kept in int8 give no gradients, and say so")
    func int8() throws {
        let model = try Model(activation: "relu")
        let error = #expect(throws: TrainingError.self) { try model.gradients(try model.experts(.int8)) }
        #expect(error?.message.contains("int8") == true)
    }
}
