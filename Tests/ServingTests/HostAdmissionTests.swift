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
        let outcome1 = admission.next(now: self.now)
        #expect(outcome1 == .init(step: .compute(first)))
        #expect(admission.isBusy)
        #expect(admission.waitingRows == 2)
        admission.finished(first)
        let outcome2 = admission.next(now: self.now)
        #expect(outcome2 == .init(step: .compute(second)))
        admission.finished(second)
        let outcome3 = admission.next(now: self.now)
        #expect(outcome3 == .init(step: .wait))
        #expect(!admission.isBusy)
    }

    @Test("The queue is bounded in calls and in rows; the call that is computed takes no place")
    func bounds() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 6, deadline: nil, now: self.now))
        let outcome4 = admission.arrived(rows: 5, deadline: nil, now: self.now)
        #expect(outcome4 == .refuseRows(waiting: 6, limit: 10))
        _ = try self.id(admission.arrived(rows: 4, deadline: nil, now: self.now))
        let outcome5 = admission.arrived(rows: 1, deadline: nil, now: self.now)
        #expect(outcome5 == .refuseCalls(limit: 2))
        let outcome6 = admission.next(now: self.now)
        #expect(outcome6.step == .compute(first))
        _ = try self.id(admission.arrived(rows: 6, deadline: nil, now: self.now))
        #expect(admission.waitingCalls == 2)
    }

    @Test("A call whose deadline has passed is refused, or skipped when its turn comes")
    func deadlines() throws {
        var admission = self.admission
        let soon = self.now.advanced(by: .milliseconds(5))
        let outcome7 = admission.arrived(rows: 1, deadline: self.now, now: self.now)
        #expect(outcome7 == .refuseExpired)
        let late = try self.id(admission.arrived(rows: 1, deadline: soon, now: self.now))
        let patient = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        let outcome8 = admission.next(now: soon)
        #expect(outcome8 == .init(expired: [late], step: .compute(patient)))
        #expect(admission.waitingRows == 0)
    }

    @Test("A cancelled call that waits is forgotten; one that is computed goes on")
    func cancellation() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        let second = try self.id(admission.arrived(rows: 3, deadline: nil, now: self.now))
        let outcome9 = admission.next(now: self.now)
        #expect(outcome9.step == .compute(first))
        let outcome10 = admission.cancelled(first)
        #expect(!outcome10)
        let outcome11 = admission.cancelled(second)
        #expect(outcome11)
        let outcome12 = admission.cancelled(second)
        #expect(!outcome12)
        #expect(admission.waitingRows == 0)
        admission.finished(first)
        let outcome13 = admission.next(now: self.now)
        #expect(outcome13.step == .wait)
    }

    @Test("A draining host refuses calls, finishes those it has and leaves")
    func draining() throws {
        var admission = self.admission
        let first = try self.id(admission.arrived(rows: 1, deadline: nil, now: self.now))
        admission.beginDraining()
        #expect(admission.isDraining)
        let outcome14 = admission.arrived(rows: 1, deadline: nil, now: self.now)
        #expect(outcome14 == .refuseDraining)
        let outcome15 = admission.next(now: self.now)
        #expect(outcome15.step == .compute(first))
        admission.finished(first)
        let outcome16 = admission.next(now: self.now)
        #expect(outcome16.step == .leave)
    }
}
