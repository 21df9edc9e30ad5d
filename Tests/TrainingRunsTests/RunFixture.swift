// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchTraining
import SwitchyardTypes
import TensorKernels
import TrainingData

@testable import TrainingRuns

/// A small run in a folder of its own: a new model of two sparse layers, and forty lines.
struct RunFixture {
    static let miniature =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path + "/deploy/models/switch-mini"

    /// Words for lines: the data is made, not read, so that each test can spoil a line.
    private static let words = [
        "horse", "kingdom", "night", "king", "sword", "crown", "heart", "blood", "day", "ghost",
    ]

    let root: String

    init() throws {
        self.root = NSTemporaryDirectory() + "training-run-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: self.root, withIntermediateDirectories: true)
        try self.write(Self.configuration, to: "config.json")
        try self.write(Self.lines(40).joined(separator: "\n") + "\n", to: "data.jsonl")
    }

    func remove() { try? FileManager.default.removeItem(atPath: self.root) }

    func file(_ name: String) -> String { "\(self.root)/\(name)" }

    func write(_ text: String, to name: String) throws {
        try text.write(toFile: self.file(name), atomically: true, encoding: .utf8)
    }

    static func lines(_ count: Int) -> [String] {
        (0..<count)
            .map { index in
                let (first, second) = (self.words[index % 10], self.words[(index / 3) % 10])
                return #"{"input": "my \#(first) and the \#(second)", "target": "\#(second) \#(first)"}"#
            }
    }

    private static let configuration = """
        {"model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"],
         "vocab_size": 2048, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2,
         "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 4,
         "expert_capacity": 64, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
         "feed_forward_proj": "relu", "tie_word_embeddings": true}
        """

    /// A run of six steps of four examples, with dropout and jitter, that saves after each step.
    func plan(_ name: String, steps: Int = 6) -> RunPlan {
        var plan = RunPlan(
            model: .new(configuration: self.file("config.json"), tokenizer: Self.miniature, .paper()),
            data: [self.file("data.jsonl")],
            output: self.file(name),
            format: .jsonLines(input: "input", target: "target")
        )
        plan.batch = BatchLimits(examples: 4)
        plan.steps = steps
        plan.training.dropout = 0.1
        plan.training.expertDropout = 0.2
        plan.training.jitter = 0.01
        var adafactor = Adafactor.Settings()
        adafactor.relativeStep = false
        plan.optimizer = .adafactor(adafactor)
        plan.learningRate = 1e-2
        plan.warmUpSteps = 2
        plan.schedule = .inverseSquareRoot(timescale: nil)
        plan.stepsPerReport = 2
        plan.stepsPerSave = 1
        plan.keptSaves = 100
        plan.evaluationShare = 0.2
        plan.seed = 7
        return plan
    }

    /// Runs a plan.
    ///
    /// - Parameters:
    ///   - plan: The plan.
    ///   - resumes: Whether it goes on.
    ///   - threads: Compute threads.
    ///   - stopAfter: Steps of this session after which it is asked to stop.
    ///   - events: Takes its events.
    /// - Returns: How it ended.
    /// - Throws: What the run throws.
    @discardableResult
    static func run(
        _ plan: RunPlan,
        resumes: Bool = false,
        threads: Int = 1,
        stopAfter: Int = .max,
        events: ((RunEvent) -> Void)? = nil
    ) throws -> RunOutcome {
        var saves = 0
        let run = try TrainingRun(plan, resumes: resumes, pool: WorkPool(threads: threads)) { event in
            if case .saved = event { saves += 1 }
            events?(event)
        }
        // Fixtures save after each step.
        return try run.run { saves >= stopAfter }
    }

    /// The bytes of a save's weights.
    func weights(_ name: String, step: Int) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: self.file("\(name)/\(SaveFolder.name(step))/model.safetensors")))
    }
}
