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

@Suite("Training runs")
struct TrainingRunTests {
    @Test("Resumed after any step, in parts or with more threads, a run ends with the same bits")
    func sameRun() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try RunFixture.run(fixture.plan("whole"))
        let expected = try fixture.weights("whole", step: 6)
        #expect(try fixture.weights("whole", step: 5) != expected)

        try RunFixture.run(fixture.plan("threads"), threads: 2)
        #expect(try fixture.weights("threads", step: 6) == expected)

        var parts = fixture.plan("parts")
        parts.partTokens = 12
        try RunFixture.run(parts)
        #expect(try fixture.weights("parts", step: 6) == expected)

        for step in 1...5 {
            let name = "stopped-\(step)"
            let stopped = try RunFixture.run(fixture.plan(name), stopAfter: step)
            #expect(stopped.wasStopped && stopped.step == step)
            #expect(stopped.save == fixture.file("\(name)/\(SaveFolder.name(step))"))
            let ended = try RunFixture.run(fixture.plan(name), resumes: true)
            #expect(ended.step == 6 && !ended.wasStopped)
            #expect(try fixture.weights(name, step: 6) == expected)
            // The log tells of one run.
            let reports = try MetricsLog(fixture.file("\(name)/\(MetricsLog.name)"), resumingAfter: 6).reports()
            #expect(reports.filter { $0.kind == .training }.map(\.step).last == 6)
            #expect(reports.map(\.step) == reports.map(\.step).sorted())
        }
    }

    @Test("A model learns: the loss on lines that it has not seen falls")
    func learns() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try fixture.write(RunFixture.lines(200).joined(separator: "\n"), to: "data.jsonl")
        var plan = fixture.plan("run", steps: 120)
        plan.batch = BatchLimits(examples: 16)
        plan.training.dropout = 0
        plan.training.expertDropout = 0
        plan.learningRate = 3e-2
        plan.warmUpSteps = 10
        plan.schedule = .constant
        plan.stepsPerSave = 1000
        var losses: [Double] = []
        try RunFixture.run(plan, threads: 2) { event in
            if case .report(let report, _) = event, report.kind == .evaluation { losses.append(report.crossEntropy) }
        }
        let (first, last) = (try #require(losses.first), try #require(losses.last))
        #expect(losses.count == 2 && last < first / 3, "\(losses)")
    }

    @Test("AdamW's state is part of a save")
    func adam() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        func plan(_ name: String) -> RunPlan {
            var plan = fixture.plan(name, steps: 4)
            plan.optimizer = .adamW(AdamW.Settings())
            plan.learningRate = 1e-3
            return plan
        }
        try RunFixture.run(plan("whole"))
        try RunFixture.run(plan("halves"), stopAfter: 2)
        try RunFixture.run(plan("halves"), resumes: true)
        #expect(try fixture.weights("halves", step: 4) == fixture.weights("whole", step: 4))
    }

    @Test("A save opens as a checkpoint, with tokenizer and configuration")
    func checkpoint() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        var reports: [RunReport] = []
        try RunFixture.run(fixture.plan("run", steps: 2)) { event in
            if case .report(let report, _) = event { reports.append(report) }
        }
        let save = fixture.file("run/latest")
        let checkpoint = try Checkpoint.open(save)
        try checkpoint.validate()
        #expect(checkpoint.configuration.expertCount == 4)
        #expect(FileManager.default.fileExists(atPath: "\(save)/spiece.model"))
        #expect(FileManager.default.fileExists(atPath: fixture.file("run/training.svg")))
        // Evaluated before the first step, and after the last.
        #expect(reports.filter { $0.kind == .evaluation }.map(\.step) == [0, 2])
        #expect(reports.allSatisfy { $0.loss.isFinite && $0.layers.count == 2 })
        let training = try #require(reports.first { $0.kind == .training })
        #expect(training.learningRate != nil && training.gradientNorm != nil)
        for layer in training.layers { #expect(abs(layer.shares.reduce(0, +) - 1) < 1e-9) }
    }

    @Test("A checkpoint is trained further, and one of bfloat16 is saved as float32")
    func fineTunes() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        var plan = fixture.plan("run", steps: 1)
        plan.model = .checkpoint(RunFixture.miniature)
        plan.evaluationShare = 0
        try RunFixture.run(plan)
        let save = fixture.file("run/latest")
        let text = try String(contentsOfFile: "\(save)/config.json", encoding: .utf8)
        #expect(text.contains(#""dtype": "float32""#) && !text.contains("bfloat16"))
        #expect(FileManager.default.fileExists(atPath: "\(save)/generation_config.json"))
        try Checkpoint.open(save).validate()
    }

    @Test("A LoRA run resumes with the same bits, leaves all else as it was, and saves adapter and merged weights")
    func adapter() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        func plan(_ name: String) -> RunPlan {
            var plan = fixture.plan(name, steps: 3)
            plan.model = .checkpoint(RunFixture.miniature)
            plan.modelName = "switch-mini"
            plan.evaluationShare = 0
            var settings = LowRankSettings()
            settings.rank = 2
            settings.targets = ["q", "experts.expert_1.wo"]
            plan.lowRank = settings
            return plan
        }
        var sizes: [RunSize] = []
        try RunFixture.run(plan("whole")) { if case .started(let size, _) = $0 { sizes.append(size) } }
        try RunFixture.run(plan("halves"), stopAfter: 1)
        try RunFixture.run(plan("halves"), resumes: true)
        #expect(try fixture.weights("halves", step: 3) == fixture.weights("whole", step: 3))
        let size = try #require(sizes.first)
        #expect(size.trainedParameters > 0 && size.trainedParameters < size.parameters / 20)
        let save = fixture.file("whole/latest")
        let trained = try Checkpoint.open(save)
        let base = try Checkpoint.open(RunFixture.miniature)
        for (role, changes) in [
            (TensorRole.sharedEmbedding, false), (.attention(.encoder, block: 0, .selfAttention, .query), true),
            (.attention(.encoder, block: 0, .selfAttention, .value), false),
        ] {
            #expect(try (self.floats(base, role) != self.floats(trained, role)) == changes, "\(role)")
        }
        let configuration = try String(contentsOfFile: "\(save)/adapter/adapter_config.json", encoding: .utf8)
        #expect(configuration.contains("switch-mini"))
        // What --merge-adapter makes of it is what the save holds.
        let merged = try Checkpoint.open(RunFixture.miniature, adapter: "\(save)/adapter")
        #expect(merged.adapter != nil)
        var other = plan("halves")
        other.lowRank?.rank = 4
        #expect(throws: RunError.self) { try RunFixture.run(other, resumes: true) }
    }

    private func floats(_ checkpoint: Checkpoint, _ role: TensorRole) throws -> [Float] {
        let view = try checkpoint.tensor(role)
        return view.withUnsafeBytes { bytes in
            [Float](unsafeUninitializedCapacity: view.elementCount) { target, count in
                if let source = bytes.baseAddress, let start = target.baseAddress {
                    view.dtype.read(source, count: view.elementCount, into: start)
                }
                count = view.elementCount
            }
        }
    }

    @Test("A run that diverges says where, and leaves the last save as it was")
    func diverges() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try RunFixture.run(fixture.plan("run"), stopAfter: 2)
        let before = try fixture.weights("run", step: 2)
        var plan = fixture.plan("wild")
        plan.warmUpSteps = 0
        plan.schedule = .constant
        plan.learningRate = 1e30
        plan.clipNorm = nil
        plan.evaluationShare = 0
        plan.stepsPerSave = 100
        let error = #expect(throws: RunError.self) { try RunFixture.run(plan) }
        #expect(error?.description.contains("data.jsonl:") == true, "\(String(describing: error))")
        #expect(error?.description.contains("no save yet") == true, "\(String(describing: error))")
        #expect(SaveFolder(fixture.file("wild")).saves().isEmpty)
        #expect(try fixture.weights("run", step: 2) == before)
    }

    @Test("Another seed, other data or another optimizer does not go on with a run")
    func otherRun() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try RunFixture.run(fixture.plan("run"), stopAfter: 2)
        func refuses(_ word: String, _ change: (inout RunPlan) -> Void) {
            var plan = fixture.plan("run")
            change(&plan)
            do {
                try RunFixture.run(plan, resumes: true)
                Issue.record("a run with another \(word) went on")
            } catch {
                #expect("\(error)".contains(word), "\(error)")
            }
        }
        refuses("seed") { $0.seed = 8 }
        refuses("optimizer") { $0.optimizer = .adamW(AdamW.Settings()) }
        refuses("training settings") { $0.training.dropout = 0.2 }
        refuses("learning rate") { $0.learningRate = 2e-2 }
        refuses("batch") { $0.batch = BatchLimits(examples: 5) }
        try fixture.write(RunFixture.lines(41).joined(separator: "\n"), to: "data.jsonl")
        refuses("other data") { _ in }
        #expect(SaveFolder(fixture.file("run")).saves().map(\.step) == [1, 2])
    }

    @Test("Lines that cannot be used are counted, or end the run with file and line")
    func lines() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        var lines = RunFixture.lines(40)
        lines[11] = #"{"input": "a target over the limit", "target": "\#(String(repeating: "night ", count: 60))"}"#
        lines[12] = "no JSON"
        try fixture.write(lines.joined(separator: "\n"), to: "data.jsonl")
        var plan = fixture.plan("counted", steps: 12)
        plan.examples.maximumTargetTokens = 20
        plan.evaluationShare = 0
        var unusable: [String] = []
        try RunFixture.run(plan) {
            if case .unusableLines(let count, let why) = $0 { unusable.append("\(count) \(why)") }
        }
        let summary = try #require(unusable.first)
        #expect(summary.contains("data.jsonl:12") && summary.contains("data.jsonl:13"), "\(summary)")
        plan.output = fixture.file("fails")
        plan.examples.faultRule = .fail
        #expect(throws: DataError.self) { try RunFixture.run(plan) }
    }

    @Test("Blank lines of plain text part paragraphs, and are no fault")
    func blankLines() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        let text = Array(repeating: "my kingdom for a horse and the crown of the king", count: 12)
        try fixture.write(text.joined(separator: "\n\n") + "\n\u{7F}\0\n", to: "text.txt")
        var plan = fixture.plan("run", steps: 12)
        plan.data = [fixture.file("text.txt")]
        plan.examples = ExampleSettings(format: .text)
        plan.examples.joinsLines = false
        plan.evaluationShare = 0
        var unusable: [String] = []
        try RunFixture.run(plan) {
            if case .unusableLines(let count, let why) = $0 { unusable.append("\(count) \(why)") }
        }
        #expect(unusable.count == 1)
        #expect(unusable.first?.contains("empty") == false, "\(unusable)")
        #expect(unusable.first?.contains("holds NUL") == true, "\(unusable)")
    }

    @Test("A new run does not mix with another, and a part of a model is refused")
    func refused() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try RunFixture.run(fixture.plan("run"), stopAfter: 1)
        #expect(throws: RunError.self) { try RunFixture.run(fixture.plan("run")) }
        #expect(throws: RunError.self) { try RunFixture.run(fixture.plan("nothing"), resumes: true) }
        // A refused run leaves no folder behind.
        #expect(!FileManager.default.fileExists(atPath: fixture.file("nothing")))
        var plan = fixture.plan("endless")
        plan.steps = nil
        #expect(throws: RunError.self) { try RunFixture.run(plan) }
        plan = fixture.plan("small")
        try fixture.write(
            try String(contentsOfFile: fixture.file("config.json"), encoding: .utf8)
                .replacingOccurrences(of: "2048", with: "1000"),
            to: "config.json"
        )
        let error = #expect(throws: RunError.self) { try RunFixture.run(plan) }
        #expect(error?.description.contains("the model only 1000") == true)
    }

    @Test("A run that was stopped before its first step saves nothing, and is no failure")
    func stoppedAtOnce() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        let run = try TrainingRun(fixture.plan("run"), resumes: false, pool: WorkPool(threads: 1)) { _ in }
        let outcome = try run.run { true }
        #expect(outcome.wasStopped && outcome.save == nil && outcome.step == 0)
    }

    @Test("A run that is stopped in an evaluation saves its step, takes no other and goes on with the same bits")
    func stoppedInEvaluation() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        var plan = fixture.plan("run", steps: 4)
        plan.stepsPerSave = 100
        plan.stepsPerEvaluation = 2
        plan.stepsPerReport = 1
        var step = 0
        var evaluations: [Int] = []
        let run = try TrainingRun(plan, resumes: false, pool: WorkPool(threads: 1)) { event in
            guard case .report(let report, _) = event else { return }
            if report.kind == .training { step = report.step } else { evaluations.append(report.step) }
        }
        // The report of step 2 comes just before its evaluation.
        let outcome = try run.run { step == 2 }
        #expect(outcome.wasStopped && outcome.step == 2 && outcome.save != nil)
        #expect(evaluations == [0])
        try RunFixture.run(plan, resumes: true)
        try RunFixture.run(fixture.plan("whole", steps: 4))
        #expect(try fixture.weights("run", step: 4) == fixture.weights("whole", step: 4))
    }

    @Test("An evaluation of a save gives the loss that the run gave, and pairs in the files' order")
    func evaluation() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        try fixture.write(RunFixture.lines(9).joined(separator: "\n"), to: "held-out.jsonl")
        var plan = fixture.plan("run", steps: 2)
        plan.evaluationShare = 0
        plan.evaluationData = [fixture.file("held-out.jsonl")]
        plan.batch = BatchLimits(targetTokens: 4096)
        plan.training.evaluationCapacity = .unlimited
        var last: RunReport?
        try RunFixture.run(plan) { if case .report(let report, _) = $0, report.kind == .evaluation { last = report } }
        var evaluation = ModelEvaluation(
            model: fixture.file("run/latest"),
            data: plan.evaluationData,
            examples: plan.examples
        )
        evaluation.capacity = .unlimited
        let (report, pairs) = try evaluation.run(pool: WorkPool(threads: 1)) { _, _ in }
        #expect(report.crossEntropy == last?.crossEntropy)
        #expect(report.accuracy == last?.accuracy)
        #expect(pairs.map(\.place) == (1...9).map { "\(fixture.file("held-out.jsonl")):\($0)" })
        evaluation.mostExamples = 4
        #expect(try evaluation.run(pool: WorkPool(threads: 1)) { _, _ in }.1.count == 4)
    }
}
