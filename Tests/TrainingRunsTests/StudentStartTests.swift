// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchTraining
import SwitchyardTypes
import TensorKernels
import Testing

@testable import TrainingRuns

@Suite("A student's first weights")
struct StudentStartTests {
    private static let pool = WorkPool(threads: 1)

    /// Writes a student, opens it, and gives its weights.
    private func made(
        _ start: StudentStart,
        in folder: String
    ) throws -> (made: StudentStart.Made, checkpoint: Checkpoint, weights: ParameterBuffer) {
        let made = try start.write(to: folder, as: start.student(), pool: Self.pool)
        let checkpoint = try Checkpoint.open("\(folder)/student")
        try checkpoint.validate()
        let layout = try ParameterLayout(checkpoint.configuration)
        return (made, checkpoint, try ParameterBuffer.load(checkpoint, layout: layout))
    }

    private func drawn(_ start: StudentStart, _ configuration: ModelConfiguration) throws -> ParameterBuffer {
        let buffer = ParameterBuffer(layout: try ParameterLayout(configuration))
        try start.initialisation.fill(buffer, keyWidth: configuration.keyWidth, seed: start.seed, pool: Self.pool)
        return buffer
    }

    @Test(
        "Tensors that are no experts' are the teacher's, and dense networks are drawn or the experts' mean",
        arguments: StudentStart.FeedForward.allCases
    )
    func auto(feedForward: StudentStart.FeedForward) throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        let start = fixture.start { $0.feedForward = feedForward }
        let (made, student, weights) = try self.made(start, in: fixture.runs.file("run"))
        let teacher = try Checkpoint.open(fixture.teacher)
        let theirs = try ParameterBuffer.load(teacher, layout: try ParameterLayout(teacher.configuration))
        let drawn = try self.drawn(start, student.configuration)
        #expect(student.configuration.family == .t5 && !student.configuration.hasExperts)
        #expect(student.configuration.scalesDecoderOutputs)
        var replaced = 0
        for (index, entry) in weights.layout.entries.enumerated() {
            if let place = theirs.layout.index(of: entry.role) {
                #expect(weights[index].elementsEqual(theirs[place]), "\(entry.name)")
                continue
            }
            guard case .dense(let stack, let block, let matrix) = entry.role else {
                Issue.record("\(entry.name) came from nowhere")
                continue
            }
            replaced += entry.range.count
            guard feedForward == .average else {
                #expect(weights[index].elementsEqual(drawn[index]), "\(entry.name)")
                continue
            }
            let layer = SparseLayer(stack: stack, block: block)
            for place in weights[index].indices {
                let sum = try (0..<4)
                    .reduce(0.0) { sum, expert in
                        let index = try #require(theirs.layout.index(of: .expert(layer, expert: expert, matrix)))
                        return sum + Double(theirs[index][place])
                    }
                #expect(weights[index][place] == Float(sum / 4))
            }
        }
        // Two sparse layers of two matrices.
        #expect(replaced == 2 * 2 * 16 * 24)
        #expect(made.parameters == weights.layout.parameterCount)
        #expect(made.taken == (feedForward == .average ? made.parameters : made.parameters - replaced))
        #expect(made.teacherParameters == theirs.layout.parameterCount)
        for name in ["spiece.model", "config.json"] {
            #expect(FileManager.default.fileExists(atPath: fixture.runs.file("run/student/\(name)")))
        }
    }

    @Test("A student that exists stays if it began in the same way, and is not replaced if it did not")
    func again() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        let folder = fixture.runs.file("run")
        let first = try self.made(fixture.start(), in: folder)
        let file = URL(fileURLWithPath: "\(folder)/student/model.safetensors")
        let bytes = try Data(contentsOf: file)
        #expect(try self.made(fixture.start(), in: folder).made == first.made)
        #expect(try Data(contentsOf: file) == bytes)
        for change: (inout StudentStart) -> Void in [
            { $0.seed = 4 }, { $0.feedForward = .average }, { $0.weights = .drawn },
            { $0.initialisation = .transformers() },
        ] {
            let error = #expect(throws: RunError.self) { try self.made(fixture.start(change), in: folder) }
            #expect(error?.description.contains("began in another way") == true)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["student"])
    }

    @Test("A student of another shape takes what fits, and drawn weights are those of a new model")
    func configurations() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        func configuration(_ name: String, width: Int, blocks: Int, vocabulary: Int = 2048) throws -> String {
            try fixture.runs.write(
                """
                {"model_type": "t5", "vocab_size": \(vocabulary), "d_model": \(width), "d_kv": 8, "d_ff": 24, "num_heads": 2,
                 "num_layers": \(blocks), "num_decoder_layers": 1, "decoder_start_token_id": 0, "eos_token_id": 1,
                 "pad_token_id": 0, "dtype": "bfloat16"}
                """,
                to: name
            )
            return fixture.runs.file(name)
        }
        let file = try configuration("deeper.json", width: 16, blocks: 3)
        let deeper = try self.made(fixture.start { $0.configurationFile = file }, in: fixture.runs.file("deeper"))
        // The third block has no model, and a block where the teacher is sparse no network.
        let block = 4 * 16 * 16 + 2 * 16
        let network = 2 * 16 * 24
        #expect(deeper.made.parameters - deeper.made.taken == block + 2 * network)
        let text = try String(contentsOfFile: fixture.runs.file("deeper/student/config.json"), encoding: .utf8)
        #expect(text.contains(#""dtype": "float32""#))

        let narrow = try configuration("narrow.json", width: 8, blocks: 2)
        let start = fixture.start { $0.configurationFile = narrow }
        let other = try self.made(start, in: fixture.runs.file("narrow"))
        // Relative biases have no width.
        #expect(other.made.taken == 2 * 32 * 2)
        let alone = fixture.start {
            $0.configurationFile = narrow
            $0.weights = .drawn
        }
        let drawn = try self.made(alone, in: fixture.runs.file("drawn"))
        #expect(drawn.made.taken == 0)
        let expected = try self.drawn(alone, drawn.checkpoint.configuration)
        #expect(expected.layout == drawn.weights.layout)
        for (index, entry) in expected.layout.entries.enumerated() {
            #expect(drawn.weights[index].elementsEqual(expected[index]), "\(entry.name)")
        }

        let wide = try configuration("wide.json", width: 16, blocks: 2, vocabulary: 4096)
        let error = #expect(throws: RunError.self) { try fixture.start { $0.configurationFile = wide }.student() }
        #expect(error?.description.contains("4096, but its teacher's has 2048") == true)
    }

    @Test("The configuration says what T5 must be told, and is read as it was meant")
    func files() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
        for name in ["t5", "t5-v1_1", "mt5", "flan-t5"] {
            let folder = "\(root)/Fixtures/dense/\(name)"
            let checkpoint = try Checkpoint.open(folder)
            let dense = try checkpoint.configuration.dense(directory: folder)
            let text = DenseConfigurationFile.text(
                dense,
                dropoutRate: try DenseConfigurationFile.dropoutRate(of: folder)
            )
            let file = NSTemporaryDirectory() + "dense-\(UUID().uuidString).json"
            defer { try? FileManager.default.removeItem(atPath: file) }
            try text.write(toFile: file, atomically: true, encoding: .utf8)
            var read = try ModelConfiguration.load(file: file)
            read.tiedEmbeddings = dense.tiedEmbeddings
            #expect(read.scalesDecoderOutputs == dense.scalesDecoderOutputs, "\(name)")
            read.decoderOutputScaling = dense.decoderOutputScaling
            read.generation = dense.generation
            #expect(read == dense, "\(name): \(text)")
        }
    }
}
