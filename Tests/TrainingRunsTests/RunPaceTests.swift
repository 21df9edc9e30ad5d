// SPDX-License-Identifier: Apache-2.0

import Testing
import TrainingData

@testable import TrainingRuns

@Suite("The pace of a run")
struct RunPaceTests {
    private func plan(steps: Int? = 10, minutes: Double? = nil) -> RunPlan {
        var plan = RunPlan(model: .checkpoint("model"), data: ["data.jsonl"], output: "run", format: .text)
        plan.steps = steps
        plan.minutes = minutes
        plan.stepsPerReport = 2
        plan.stepsPerEvaluation = 4
        plan.stepsPerSave = 5
        return plan
    }

    @Test("Reports, evaluations and saves come when they are due, all of them at the end")
    func schedule() {
        var pace = RunPace(self.plan())
        var actions: [Int: [RunPace.Action]] = [:]
        while !pace.isOver(after: 0) {
            let due = pace.stepped(after: 0, isStopping: false)
            actions[pace.step] = due
            if due.contains(.save) { pace.saved(true) }
            #expect(pace.checkInvariants() == nil)
        }
        #expect(actions[1] == [])
        #expect(actions[2] == [.report])
        #expect(actions[4] == [.report, .evaluate])
        #expect(actions[5] == [.save])
        #expect(actions[10] == [.report, .evaluate, .save, .finish])
        #expect(pace.savedStep == 10)
    }

    @Test("A save that failed is tried again after the next step, until one is written")
    func retries() {
        var pace = RunPace(self.plan(steps: 9))
        for _ in 1...4 { _ = pace.stepped(after: 0, isStopping: false) }
        #expect(pace.stepped(after: 0, isStopping: false) == [.save])
        pace.saved(false)
        #expect(pace.stepped(after: 0, isStopping: false) == [.report, .save])
        pace.saved(true)
        #expect(pace.stepped(after: 0, isStopping: false) == [])
        #expect(pace.savedStep == 6)
    }

    @Test("A run that is stopped reports and saves at once, without a last evaluation")
    func stops() {
        var pace = RunPace(self.plan())
        #expect(pace.stepped(after: 0, isStopping: true) == [.report, .save, .finish])
        #expect(pace.isOver(after: 0))
    }

    @Test("A run that is stopped while it evaluates saves what is not saved, and ends")
    func stopsLate() {
        var pace = RunPace(self.plan())
        for _ in 1...4 { _ = pace.stepped(after: 0, isStopping: false) }
        #expect(pace.stopped() == [.save, .finish])
        #expect(pace.stopped() == [] && pace.isOver(after: 0))
        var saved = RunPace(self.plan())
        for _ in 1...5 { _ = saved.stepped(after: 0, isStopping: false) }
        saved.saved(true)
        #expect(saved.stopped() == [.finish])
    }

    @Test("Minutes count over sessions, and the earlier of steps and minutes ends it")
    func minutes() {
        var pace = RunPace(self.plan(steps: nil, minutes: 2), resumingAfter: 7)
        #expect(!pace.isOver(after: 119))
        #expect(pace.isOver(after: 120))
        #expect(pace.stepped(after: 121, isStopping: false) == [.report, .evaluate, .save, .finish])
        #expect(RunPace(self.plan(), resumingAfter: 10).isOver(after: 0))
        let both = RunPace(self.plan(steps: 100, minutes: 1), resumingAfter: 50)
        #expect(both.secondsLeft(after: 20, stepTime: 0.5) == 25)
        #expect(both.secondsLeft(after: 50, stepTime: 0.5) == 10)
    }
}
