// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertServing

@Suite
struct HostAdmissionTests {
    private let now = ContinuousClock.now
    private var admission = HostAdmission(limits: .init(calls: 2, rows: 10))

    private func id(_ outcome: HostAdmission.OnArrival) throws -> HostAdmission.CallID {
        guard case .queue(let id) = outcome else {
            throw UnexpectedOutcome(outcome: outcome)
        }
        return id
    }

    private struct UnexpectedOutcome: Error {
        let outcome: HostAdmission.OnArrival
    }

    @Test("Calls are computed one at a time in the order of their arrival")
    func order() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        let second = try self.id(admission.arrived(rows: 2, deadline: nil, now: self.now))
        #expect(admission.waitingCalls == 2)
        #expect(admission.waitingRows == 3)
        let firstStep = admission.next(now: self.now)
        #expect(firstStep == .init(step: .compute(first)))
        #expect(admission.isBusy)
        #expect(admission.waitingRows == 2)
        admission.finished(first)
        let secondStep = admission.next(now: self.now)
        #expect(secondStep == .init(step: .compute(second)))
        admission.finished(second)
        let thirdStep = admission.next(now: self.now)
        #expect(thirdStep == .init(step: .wait))
        #expect(!admission.isBusy)
    }

    @Test("The queue is bounded in calls and in rows; the call that is computed takes no place")
    func bounds() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 6, deadline: nil, now: self.now))
        let wide = admission.arrived(rows: 5, deadline: nil, now: self.now)
        #expect(wide == .refuseRows(waiting: 6, limit: 10))
        _ = try self.id(admission.arrived(rows: 4, deadline: nil, now: self.now))
        let third = admission.arrived(rows: 1, deadline: nil, now: self.now)
        #expect(third == .refuseCalls(limit: 2))
        let step = admission.next(now: self.now)
        #expect(step.step == .compute(first))
        _ = try self.id(admission.arrived(rows: 6, deadline: nil, now: self.now))
        #expect(admission.waitingCalls == 2)
    }

    @Test("A call whose deadline has passed is refused, or skipped when its turn comes")
    func deadlines() throws {
        var admission = self.admission
        let soon = self.now.advanced(by: .milliseconds(5))
        let expired = admission.arrived(rows: 1, deadline: self.now, now: self.now)
        #expect(expired == .refuseExpired)
        let late = try self.id(admission.arrived(rows: 1, deadline: soon, now: self.now))
        let patient = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        let step = admission.next(now: soon)
        #expect(step == .init(expired: [late], step: .compute(patient)))
        #expect(admission.waitingRows == 0)
    }

    @Test("A cancelled call that waits is forgotten; one that is computed goes on")
    func cancellation() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        let second = try self.id(admission.arrived(rows: 3, deadline: nil, now: self.now))
        let step = admission.next(now: self.now)
        #expect(step.step == .compute(first))
        let whileComputed = admission.cancelled(first)
        #expect(!whileComputed)
        let whileWaiting = admission.cancelled(second)
        #expect(whileWaiting)
        let again = admission.cancelled(second)
        #expect(!again)
        #expect(admission.waitingRows == 0)
        admission.finished(first)
        let nextStep = admission.next(now: self.now)
        #expect(nextStep.step == .wait)
    }

    @Test("A draining host refuses calls, finishes those it has and leaves")
    func draining() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        admission.beginDraining()
        #expect(admission.isDraining)
        let late = admission.arrived(rows: 1, deadline: nil, now: self.now)
        #expect(late == .refuseDraining)
        let step = admission.next(now: self.now)
        #expect(step.step == .compute(first))
        admission.finished(first)
        let lastStep = admission.next(now: self.now)
        #expect(lastStep.step == .leave)
    }
}
