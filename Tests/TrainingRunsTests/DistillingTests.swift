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

/// A teacher of two steps' training, and students of it.
struct DistillingFixture {
    let runs: RunFixture
    /// The teacher's folder.
    let teacher: String

    init() throws {
        self.runs = try RunFixture()
        try RunFixture.run(self.runs.plan("teacher", steps: 2))
        self.teacher = self.runs.file("teacher/\(SaveFolder.name(2))")
    }

    func remove() { self.runs.remove() }

    func start(_ change: (inout StudentStart) -> Void = { _ in }) -> StudentStart {
        var start = StudentStart(teacher: self.teacher)
        start.seed = 3
        change(&start)
        return start
    }

    /// A student's run of four steps that saves after each.
    func plan(_ name: String, steps: Int = 4) throws -> RunPlan {
        let start = self.start()
        let student = try start.student()
        var plan = self.runs.plan(name, steps: steps)
        _ = try start.write(to: plan.output, as: student, pool: WorkPool(threads: 1))
        plan.model = .checkpoint("\(plan.output)/\(StudentStart.folderName)")
        plan.start = student.description
        var loss = TeacherLoss()
        loss.weight = 0.5
        loss.temperature = 2
        plan.training.teacher = loss
        return plan
    }

    func local(threads: Int = 1, kept: Int? = 8) throws -> LocalTeacher {
        try LocalTeacher(self.teacher, kept: kept, temperature: 2, pool: WorkPool(threads: threads))
    }

    func cached(_ teacher: any Teacher, _ name: String = "answers") throws -> CachedTeacher {
        CachedTeacher(teacher, cache: try ContentCache(self.runs.file(name), limit: 1 << 20))
    }

    @discardableResult
    func run(
        _ plan: RunPlan,
        _ teacher: any Teacher,
        resumes: Bool = false,
        threads: Int = 1,
        stopAfter: Int = .max,
        events: ((RunEvent) -> Void)? = nil
    ) throws -> RunOutcome {
        var saves = 0
        let pool = WorkPool(threads: threads)
        let run = try TrainingRun(plan, resumes: resumes, pool: pool, teacher: teacher) { event in
            if case .saved = event { saves += 1 }
            events?(event)
        }
        return try run.run { saves >= stopAfter }
    }
}

/// A teacher that must not be asked.
final class SilentTeacher: Teacher {
    let identity: TeacherIdentity
    init(_ identity: TeacherIdentity) { self.identity = identity }
    func answers(to questions: [TeacherQuestion]) throws -> [TeacherAnswer] {
        throw RunError("asked \(questions.count) questions")
    }
}

@Suite("Distilling")
struct DistillingTests {
    @Test("In parts, with more threads, resumed after any step, from a cache or without, a student has the same bits")
    func sameRun() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        var divergences: [Double] = []
        try fixture.run(fixture.plan("whole"), fixture.local()) {
            if case .report(let report, _) = $0 { divergences += [report.divergence].compactMap { $0 } }
        }
        #expect(divergences.count == 2 && divergences.allSatisfy { $0 > 0 })
        let expected = try fixture.runs.weights("whole", step: 4)
        #expect(try fixture.runs.weights("whole", step: 3) != expected)

        var parts = try fixture.plan("parts")
        parts.partTokens = 12
        try fixture.run(parts, fixture.local(threads: 3), threads: 2)
        #expect(try fixture.runs.weights("parts", step: 4) == expected)

        let asking = try fixture.cached(fixture.local())
        for step in 1...3 {
            try fixture.run(fixture.plan("stopped-\(step)"), asking, stopAfter: step)
            try fixture.run(fixture.plan("stopped-\(step)"), asking, resumes: true)
            #expect(try fixture.runs.weights("stopped-\(step)", step: 4) == expected)
        }
        // Some of the sixteen examples are the same.
        #expect((9...16).contains(asking.counts.missing) && asking.counts.damaged == 0)
        #expect(asking.counts.found + asking.counts.missing == 3 * 16)

        try fixture.run(fixture.plan("cached"), CachedTeacher(SilentTeacher(asking.identity), cache: asking.cache))
        #expect(try fixture.runs.weights("cached", step: 4) == expected)
    }

    @Test("Answers that were damaged on disk are computed again")
    func damaged() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        do { try fixture.run(fixture.plan("first"), fixture.cached(fixture.local())) }
        let file = fixture.runs.file("answers/segment-00000001.bin")
        var bytes = try Data(contentsOf: URL(fileURLWithPath: file))
        // In the last record's value, and a torn record behind it.
        bytes[bytes.count - 3] ^= 1
        bytes += bytes.prefix(40)
        try bytes.write(to: URL(fileURLWithPath: file))
        let teacher = try fixture.cached(fixture.local())
        try fixture.run(fixture.plan("second"), teacher)
        #expect(teacher.counts.damaged == 1 && teacher.counts.missing == 1 && teacher.counts.found == 15)
        #expect(try fixture.runs.weights("second", step: 4) == fixture.runs.weights("first", step: 4))
    }

    @Test("A run goes on with the same teacher, answers and student only")
    func refused() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        try fixture.run(fixture.plan("run"), fixture.local(), stopAfter: 1)
        func refusal(_ plan: RunPlan, _ teacher: (any Teacher)?) -> String {
            let error = #expect(throws: RunError.self) {
                try TrainingRun(plan, resumes: true, pool: WorkPool(threads: 1), teacher: teacher) { _ in }
            }
            return error?.description ?? ""
        }
        let plan = try fixture.plan("run")
        #expect(refusal(plan, try fixture.local(kept: 9)).contains("has teacher fingerprint"))
        #expect(refusal(plan, nil).contains("needs a teacher"))
        var other = plan
        other.training.teacher?.weight = 0.25
        #expect(refusal(other, try fixture.local()).contains("training settings"))
        other = plan
        other.start = "another"
        #expect(refusal(other, try fixture.local()).contains("has student teacher"))
        other = plan
        other.training.teacher = nil
        #expect(refusal(other, try fixture.local()).contains("needs a teacher"))
    }

    @Test("A student comes nearer to its teacher")
    func learns() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        let start = fixture.start {
            $0.weights = .drawn
            $0.seed = 99
        }
        _ = try start.write(to: fixture.runs.file("run"), as: start.student(), pool: WorkPool(threads: 1))
        var plan = fixture.runs.plan("run", steps: 40)
        plan.model = .checkpoint(fixture.runs.file("run/student"))
        plan.training.teacher = TeacherLoss()
        plan.training.dropout = 0
        plan.training.teacher?.weight = 1
        plan.evaluationShare = 0
        plan.stepsPerSave = 1000
        plan.warmUpSteps = 5
        plan.learningRate = 3e-2
        plan.schedule = .constant
        var divergences: [Double] = []
        try fixture.run(plan, fixture.cached(fixture.local())) {
            if case .report(let report, _) = $0, let divergence = report.divergence { divergences.append(divergence) }
        }
        let (first, last) = (try #require(divergences.first), try #require(divergences.last))
        #expect(last < first / 2, "\(divergences)")
    }

    @Test("Answers are the greatest of the teacher's softmax, and neighbours do not change them")
    func answers() throws {
        let fixture = try DistillingFixture()
        defer { fixture.remove() }
        let questions = (0..<5)
            .map {
                TeacherQuestion(
                    input: [Int32(40 + $0), 7, 1],
                    target: Array([12, 500, Int32(30 * $0 + 9), 1].prefix(4 - $0 / 2))
                )
            }
        let all = try fixture.local(kept: nil).answers(to: questions)
        let few = try fixture.local(threads: 2).answers(to: questions)
        #expect(all.count == 5 && few.count == 5)
        for (index, question) in questions.enumerated() {
            #expect(all[index].kept == 2048 && few[index].kept == 8)
            #expect(few[index].fault(places: question.target.count, vocabulary: 2048) == nil)
            #expect(try fixture.local().answers(to: [question]) == [few[index]])
            for place in question.target.indices {
                let row = Array(all[index].logprobs[place * 2048..<(place + 1) * 2048])
                let total = row.reduce(0.0) { $0 + exp(Double($1)) }
                #expect(abs(total - 1) < 1e-5)
                let greatest = row.indices.sorted { row[$0] > row[$1] || (row[$0] == row[$1] && $0 < $1) }.prefix(8)
                    .sorted()
                #expect(few[index].tokens[place * 8..<(place + 1) * 8].map { Int($0) } == greatest)
                #expect(Array(few[index].logprobs[place * 8..<(place + 1) * 8]) == greatest.map { row[$0] })
            }
        }
    }

    @Test("A teacher that is no whole model is refused")
    func teachers() throws {
        #expect(throws: CheckpointError.self) {
            try LocalTeacher("/nowhere/at/all", kept: 4, temperature: 1, pool: WorkPool(threads: 1))
        }
        let encoder =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
            + "/Fixtures/dense/encoder-alone"
        let error = #expect(throws: RunError.self) {
            try LocalTeacher(encoder, kept: 4, temperature: 1, pool: WorkPool(threads: 1))
        }
        #expect(error?.description.contains("no decoder") == true)
    }
}
