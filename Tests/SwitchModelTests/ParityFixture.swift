// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import TensorKernels

/// One fixture of Tests/Fixtures/parity: a checkpoint, opened as a user would, and what transformers computes with it.
struct ParityFixture {
    /// Different models, each with its own goldens.
    static let models = ["asymmetric", "capacity", "step4", "bfloat16", "float16"]

    /// Each model's generations, by the names in its goldens.
    static let generations: [(model: String, generation: String)] = {
        let all = [
            "greedy", "greedy-minimum", "greedy-repetition", "beam", "beam-short", "beam-long", "beam-negative",
            "beam-repetition",
        ]
        let names = [
            "asymmetric": all, "capacity": all, "step4": ["greedy", "beam", "beam-long"],
            "bfloat16": ["greedy", "beam", "beam-short"], "float16": ["greedy", "beam", "beam-negative"],
        ]
        return Self.models.flatMap { model in (names[model] ?? []).map { (model, $0) } }
    }()

    /// The same weights in other files, by the model whose goldens they share.
    static let variants = [
        ("bfloat16-torch", "bfloat16"), ("capacity-sharded", "capacity"), ("step4-torch-sharded", "step4"),
    ]

    let name: String
    let goldens: ParityGoldens
    let tensors: ParityTensors
    let checkpoint: Checkpoint
    let model: SwitchTransformer
    let experts: LocalExperts

    static func directory(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/parity/\(name)").path
    }

    /// Opens a checkpoint and the goldens that belong to it.
    ///
    /// - Parameters:
    ///   - name: The folder of the checkpoint.
    ///   - goldens: The folder of the goldens where that is another one.
    ///   - threads: Threads that compute.
    /// - Throws: What opening the checkpoint and reading the goldens throws.
    init(_ name: String, goldens: String? = nil, threads: Int = 1) throws {
        let directory = Self.directory(name)
        let goldenDirectory = Self.directory(goldens ?? name)
        self.name = name
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self.goldens = try decoder.decode(
            ParityGoldens.self,
            from: Data(contentsOf: URL(fileURLWithPath: goldenDirectory + "/golden.json"))
        )
        self.tensors = try ParityTensors(path: goldenDirectory + "/golden.safetensors")
        self.checkpoint = try Checkpoint.open(directory)
        let pool = WorkPool(threads: threads)
        self.model = try SwitchTransformer(checkpoint: self.checkpoint, pool: pool)
        self.experts = try LocalExperts(checkpoint: self.checkpoint, pool: pool)
    }

    var configuration: ModelConfiguration { self.model.configuration }

    /// Encodes inputs and keeps everything that a record can hold.
    func encode(_ inputs: [[Int32]]) throws -> ([EncodedSequence], RoutingRecord) {
        var record = RoutingRecord()
        let encoded = try self.model.encode(inputs, experts: self.experts, options: .parity, record: &record)
        return (encoded, record)
    }

    /// Feeds each row all of its tokens in one call, from an empty cache; logits of all tokens.
    func decode(_ encoded: [EncodedSequence], _ tokens: [[Int32]]) throws -> (FloatMatrix, RoutingRecord) {
        var record = RoutingRecord()
        let rows = zip(encoded, tokens).map { DecoderInput(cache: DecoderCache($0), tokens: $1) }
        let logits = try self.model.decode(rows, experts: self.experts, options: .parity, record: &record)
        return (logits, record)
    }
}

extension StepOptions {
    /// Everything is collected, and every token has logits.
    static var parity: StepOptions {
        StepOptions(collectHiddenStates: true, collectRouting: true, logits: .all)
    }
}

extension FloatMatrix {
    /// All elements, row-major.
    var values: [Float] {
        [Float](UnsafeBufferPointer(start: self.pointer, count: self.rows * self.columns))
    }
}
