// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchTraining
import SwitchyardTypes
import TensorKernels
import Testing

@testable import TrainingRuns

@Suite("Runs around experts that stay as they are")
struct FrozenExpertsTests {
    /// A checkpoint to begin with, and a plan of some steps around its experts.
    private static func plan(_ fixture: RunFixture, _ name: String, steps: Int = 4) throws -> RunPlan {
        let first = fixture.file("first")
        if !FileManager.default.fileExists(atPath: first) {
            var plan = fixture.plan("first", steps: 1)
            plan.evaluationShare = 0
            try RunFixture.run(plan)
        }
        let checkpoint = fixture.file("first/\(SaveFolder.name(1))")
        var plan = fixture.plan(name, steps: steps)
        plan.model = .checkpoint(checkpoint)
        plan.freezesExperts = true
        plan.training.expertDropout = 0
        return plan
    }

    private static func tensors(_ save: String) throws -> [String: [UInt8]] {
        let tensors = try SafetensorsFile.read(save + "/model.safetensors")
        return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.withUnsafeBytes { Array($0) }) })
    }

    @Test("All but experts changes; a save is a whole checkpoint, without optimizer state of experts")
    func saves() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        let plan = try Self.plan(fixture, "run")
        var size: RunSize?
        try RunFixture.run(plan) { if case .started(let started, _) = $0 { size = started } }
        let before = try Self.tensors(fixture.file("first/\(SaveFolder.name(1))"))
        let after = try Self.tensors(fixture.file("run/\(SaveFolder.name(4))"))
        #expect(before.keys == after.keys)
        for (name, bytes) in before { #expect((bytes == after[name]) == name.contains("expert_"), "\(name)") }
        let state = fixture.file("run/\(SaveFolder.name(4))/\(SaveFolder.resumeName)/\(ResumeState.optimizerName)")
        #expect(try SafetensorsFile.read(state).allSatisfy { !$0.name.contains("expert_") })
        let started = try #require(size)
        let experts = before.filter { $0.key.contains("expert_") }.reduce(0) { $0 + $1.value.count / 4 }
        #expect(started.trainedParameters == started.parameters - experts)
        #expect(started.freezesExperts)
    }

    @Test("Experts elsewhere and a resumed run give the same weights, and another checkpoint's experts are refused")
    func elsewhere() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        let plan = try Self.plan(fixture, "here")
        try RunFixture.run(plan)
        var other = plan
        other.output = fixture.file("elsewhere")
        guard case .checkpoint(let directory) = plan.model else { return }
        let checkpoint = try Checkpoint.open(directory)
        let experts = try LocalExperts(checkpoint: checkpoint, pool: WorkPool(threads: 1))
        var saves = 0
        let first = try TrainingRun(other, resumes: false, pool: WorkPool(threads: 2), experts: .frozen(experts)) {
            if case .saved = $0 { saves += 1 }
        }
        #expect(try first.run { saves >= 2 }.wasStopped)
        #expect(throws: RunError.self) {
            var another = other
            another.model = .checkpoint(fixture.file("here/\(SaveFolder.name(4))"))
            try RunFixture.run(another, resumes: true)
        }
        try RunFixture.run(other, resumes: true)
        #expect(try fixture.weights("here", step: 4) == fixture.weights("elsewhere", step: 4))
    }

    @Test("Plans that cannot be are refused in words")
    func refusals() throws {
        let fixture = try RunFixture()
        defer { fixture.remove() }
        let plan = try Self.plan(fixture, "run")
        for (words, change) in [
            ("expert-dropout is 0.4", { $0.training.expertDropout = 0.4 }),
            ("expert-dropout is 0.1", { $0.training.expertDropout = nil }),
            ("LoRA", { $0.lowRank = LowRankSettings() }), ("a new model's", { $0.model = fixture.plan("x").model }),
        ] as [(String, (inout RunPlan) -> Void)] {
            var changed = plan
            change(&changed)
            let error = #expect(throws: RunError.self) { try changed.validate() }
            #expect(error?.description.contains(words) == true, "\(error?.description ?? "no error")")
        }
        var trained = plan
        trained.freezesExperts = false
        guard case .checkpoint(let directory) = plan.model else { return }
        let experts = try LocalExperts(checkpoint: Checkpoint.open(directory), pool: WorkPool(threads: 1))
        #expect(throws: RunError.self) {
            try TrainingRun(trained, resumes: false, pool: WorkPool(threads: 1), experts: .frozen(experts)) { _ in }
        }
    }
}
