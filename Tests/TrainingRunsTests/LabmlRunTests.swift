// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchTraining
import SwitchyardTypes
import TensorKernels
import Testing
import TrainingData

@testable import TrainingRuns

@Suite("Training runs of models without an encoder")
struct LabmlRunTests {
    private static let line = "the king and the ghost meet at night, and the crown falls. "

    /// A run of six steps of four windows, with drawn drops, that saves after each step.
    private func plan(_ fixture: RunFixture, _ name: String, steps: Int = 6) throws -> RunPlan {
        let text = fixture.file("text.txt")
        if !FileManager.default.fileExists(atPath: text) {
            try fixture.write(String(repeating: Self.line, count: 30), to: "text.txt")
        }
        let characters = try TextWindows.characters(of: [text])
        let configuration = """
            {"model_type": "labml_switch", "characters": "\(characters)", "d_model": 16, "heads": 2, "d_ff": 24,
             "n_layers": 2, "n_experts": 3, "drop_tokens": true, "capacity_factor": 1.2}
            """
        var plan = RunPlan(
            model: .drawn(configuration: Array(configuration.utf8), characters: characters, .labml),
            data: [text],
            output: fixture.file(name),
            format: .next(length: 12)
        )
        plan.examples.maximumInputTokens = 12
        plan.examples.maximumTargetTokens = 12
        plan.batch = BatchLimits(examples: 4)
        plan.steps = steps
        plan.training.dropout = 0.1
        plan.training.capacity = .floor(1.2, .drawn(seed: 0))
        plan.training.evaluationCapacity = .unlimited
        plan.optimizer = .adam(.init())
        plan.learningRate = 1
        plan.schedule = .noam(width: 16)
        plan.warmUpSteps = 10
        plan.stepsPerReport = 2
        plan.stepsPerSave = 1
        plan.keptSaves = 100
        plan.evaluationShare = 0.1
        plan.seed = 7
        return plan
    }

    @Test("Resumed after any step and with more threads, a run ends with the same bits, and its save is a model")
    func sameRun() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try RunFixture.run(try self.plan(fixture, "whole"))
        let expected = try fixture.weights("whole", step: 6)
        #expect(try fixture.weights("whole", step: 5) != expected)
        try RunFixture.run(try self.plan(fixture, "threads"), threads: 2)
        #expect(try fixture.weights("threads", step: 6) == expected)
        for step in [1, 4] {
            let stopped = try RunFixture.run(try self.plan(fixture, "stopped-\(step)"), stopAfter: step)
            #expect(stopped.wasStopped && stopped.step == step)
            try RunFixture.run(try self.plan(fixture, "stopped-\(step)"), resumes: true)
            #expect(try fixture.weights("stopped-\(step)", step: 6) == expected)
        }
        let save = fixture.file("whole/latest")
        let checkpoint = try Checkpoint.open(save)
        try checkpoint.validate()
        #expect(checkpoint.configuration.family == .labmlSwitch)

        // A run may begin with the save as well.
        var next = try self.plan(fixture, "next", steps: 2)
        next.model = .checkpoint(save)
        #expect(try RunFixture.run(next).step == 2)
    }

    @Test("The report has what labml's experiment tracks, and the loss on the text's end falls")
    func learns() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        var plan = try self.plan(fixture, "run", steps: 80)
        plan.batch = BatchLimits(examples: 8)
        plan.training.dropout = 0
        plan.stepsPerSave = 1000
        var (training, evaluation): ([RunReport], [RunReport]) = ([], [])
        try RunFixture.run(plan, threads: 2) { event in
            guard case .report(let report, _) = event else { return }
            if report.kind == .training { training.append(report) } else { evaluation.append(report) }
        }
        let (first, last) = (try #require(evaluation.first), try #require(evaluation.last))
        #expect(last.crossEntropy < first.crossEntropy / 2, "\(first.crossEntropy), \(last.crossEntropy)")
        #expect(evaluation.allSatisfy { $0.dropped == 0 })
        let report = try #require(training.last)
        let shares = try #require(report.shareRange)
        #expect(shares.least >= 0 && shares.greatest <= 1 && shares.least < shares.greatest)
        #expect(shares.deviation > 0 && shares.deviation < shares.greatest - shares.least)
        #expect(try #require(report.certainty) > 1 / 3.0)
        #expect(training.contains { $0.dropped ?? 0 > 0 })
        let svg = try String(contentsOfFile: fixture.file("run/\(RunPicture.name)"), encoding: .utf8)
        #expect(svg.contains("Probability of the chosen expert") && svg.contains("Experts' shares"))

        // `evaluate` on the end of the text alone gives what the run gave.
        var held = ExampleSettings(format: .next(length: 12))
        (held.maximumInputTokens, held.maximumTargetTokens) = (12, 12)
        let text = try String(contentsOfFile: fixture.file("text.txt"), encoding: .utf8)
        try fixture.write(String(text.dropFirst(Int(Double(text.count) * 0.9))), to: "end.txt")
        var measure = ModelEvaluation(
            model: fixture.file("run/latest"),
            data: [fixture.file("end.txt")],
            examples: held
        )
        measure.capacity = .unlimited
        let (measured, _) = try measure.run(pool: WorkPool(threads: 1)) { _, _ in }
        #expect(abs(measured.crossEntropy - last.crossEntropy) < 1e-6)
    }

    @Test("What does not go with a model without an encoder is refused in words")
    func refusals() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        func refuses(_ words: String, _ change: (inout RunPlan) throws -> Void) throws {
            var plan = try self.plan(fixture, "refused-\(UUID().uuidString)")
            try change(&plan)
            do {
                try RunFixture.run(plan)
                Issue.record("not refused: \(words)")
            } catch {
                #expect("\(error)".contains(words), "\(words): \(error)")
            }
            #expect(!FileManager.default.fileExists(atPath: plan.output))
        }
        try refuses("(U+E9) is not among") { plan in
            try fixture.write(Self.line + "\u{E9}" + Self.line, to: "odd.txt")
            plan.data = [fixture.file("odd.txt")]
        }
        try refuses("no encoder") { plan in
            plan.examples = ExampleSettings(format: .jsonLines(input: "input", target: "target"))
            plan.data = [fixture.file("data.jsonl")]
        }
        try refuses("which has an encoder") { plan in
            plan.model = fixture.plan("t5").model
        }
        try refuses("drawn among all") { $0.partTokens = 24 }
        try refuses("need 13") { plan in
            try fixture.write("too short", to: "short.txt")
            plan.data = [fixture.file("short.txt")]
        }
    }
}
