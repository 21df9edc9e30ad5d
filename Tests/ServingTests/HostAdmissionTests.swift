// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import Testing

@testable import BatchScheduling
@testable import ExpertServing

@Suite
struct HostAdmissionTests {
    private let now = ContinuousClock.now
    private let admission = HostAdmission(limits: .init(calls: 2, rows: 10), batching: .init(rows: 1))

    @Test("Without batching, calls are computed one at a time in the order of their arrival")
    func order() throws {
        var admission = self.admission
        let first = try admission.queue(rows: 1, now: self.now)
        let second = try admission.queue(rows: 2, now: self.now)
        #expect(admission.waitingCalls == 2)
        #expect(admission.waitingRows == 3)
        let firstStep = admission.next(now: self.now)
        #expect(firstStep == .init(step: .compute(.init(calls: [first], rows: 1))))
        #expect(admission.computingCalls == 1)
        #expect(admission.waitingRows == 2)
        admission.finished(expertReads: 1, now: self.now)
        let secondStep = admission.next(now: self.now)
        #expect(secondStep == .init(step: .compute(.init(calls: [second], rows: 2))))
        admission.finished(expertReads: 1, now: self.now)
        let thirdStep = admission.next(now: self.now)
        #expect(thirdStep == .init(step: .wait(until: nil)))
        #expect(admission.computingCalls == 0)
    }

    @Test("The queue is bounded in calls and in rows; the call being computed takes no place")
    func bounds() throws {
        var admission = self.admission
        let first = try admission.queue(rows: 6, now: self.now)
        let wide = admission.arrived(.of(rows: 5), now: self.now)
        #expect(wide == .refuse(.rows(waiting: 6, limit: 10), retryAfter: .milliseconds(1)))
        _ = try admission.queue(rows: 4, now: self.now)
        let third = admission.arrived(.of(rows: 1), now: self.now)
        #expect(third == .refuse(.calls(limit: 2), retryAfter: .milliseconds(1)))
        let step = admission.next(now: self.now)
        #expect(step.step == .compute(.init(calls: [first], rows: 6)))
        _ = try admission.queue(rows: 6, now: self.now)
        #expect(admission.waitingCalls == 2)
    }

    @Test("A call whose deadline has passed is refused, or answered the next time the thread is free")
    func deadlines() throws {
        var admission = self.admission
        let soon = self.now.advanced(by: .milliseconds(5))
        let expired = admission.arrived(.of(rows: 1, deadline: self.now), now: self.now)
        #expect(expired == .refuseExpired)
        let patient = try admission.queue(rows: 1, now: self.now)
        let late = try admission.queue(rows: 1, deadline: soon, now: self.now)
        let step = admission.next(now: soon)
        #expect(step == .init(expired: [late], step: .compute(.init(calls: [patient], rows: 1))))
        #expect(admission.waitingRows == 0)
    }

    @Test("A waiting call is forgotten when cancelled; one being computed continues")
    func cancellation() throws {
        var admission = self.admission
        let first = try admission.queue(rows: 1, now: self.now)
        let second = try admission.queue(rows: 3, now: self.now)
        let step = admission.next(now: self.now)
        #expect(step.step == .compute(.init(calls: [first], rows: 1)))
        let whileComputed = admission.cancelled(first, now: self.now)
        #expect(!whileComputed)
        let whileWaiting = admission.cancelled(second, now: self.now)
        #expect(whileWaiting)
        let again = admission.cancelled(second, now: self.now)
        #expect(!again)
        #expect(admission.waitingRows == 0)
        admission.finished(expertReads: 1, now: self.now)
        let nextStep = admission.next(now: self.now)
        #expect(nextStep.step == .wait(until: nil))
    }

    @Test("A leaving host says so and accepts calls that still arrive; then it refuses calls, finishes and ends")
    func draining() throws {
        var admission = self.admission
        let first = try admission.queue(rows: 1, now: self.now)
        #expect(!admission.isLeaving)
        admission.beginLeaving()
        #expect(admission.isLeaving)
        let onItsWay = try admission.queue(rows: 1, now: self.now)
        let step = admission.next(now: self.now)
        #expect(step.step == .compute(.init(calls: [first], rows: 1)))
        admission.beginDraining()
        #expect(admission.isLeaving)
        let late = admission.arrived(.of(rows: 1), now: self.now)
        #expect(late == .refuseDraining)
        admission.finished(expertReads: 1, now: self.now)
        let nextStep = admission.next(now: self.now)
        #expect(nextStep.step == .compute(.init(calls: [onItsWay], rows: 1)))
        admission.finished(expertReads: 1, now: self.now)
        let lastStep = admission.next(now: self.now)
        #expect(lastStep.step == .leave)
    }

    @Test("A refused caller is told to retry once the waiting calls are computed, within limits")
    func pushback() throws {
        var admission = HostAdmission(limits: .init(calls: 1, rows: 1 << 20))
        // 100 rows took 5 ms: 50 us a row.
        for _ in 0..<3 {
            _ = try admission.queue(rows: 100, now: self.now)
            _ = admission.next(now: self.now)
            admission.finished(expertReads: 1, now: self.now.advanced(by: .milliseconds(5)))
        }
        for (rows, expected) in [(1, 1), (99, 5), (2_000, 100), (1 << 20, 1000)] {
            let id = try admission.queue(rows: rows, now: self.now)
            let refused = admission.arrived(.of(rows: 1), now: self.now)
            guard case .refuse(_, let retryAfter) = refused else {
                Issue.record("a call was not refused: \(refused)")
                return
            }
            #expect(retryAfter == .milliseconds(expected), "\(rows) rows")
            _ = admission.cancelled(id, now: self.now)
        }
    }
}

/// An unexpected result of an arrival.
struct UnexpectedOutcome: Error {
    let outcome: HostAdmission.OnArrival
}

extension HostAdmission {
    /// Queues a call that must find room.
    mutating func queue(
        _ source: String = "a",
        layer: SparseLayer = .of(1),
        rows: Int,
        deadline: ContinuousClock.Instant? = nil,
        kind: Kind = .serving,
        now: ContinuousClock.Instant
    ) throws -> CallID {
        var call = HostAdmission.Call.of(source, layer: layer, rows: rows, deadline: deadline)
        call.kind = kind
        let outcome = self.arrived(call, now: now)
        #expect(self.checkInvariants() == nil)
        guard case .queue(let id) = outcome else {
            throw UnexpectedOutcome(outcome: outcome)
        }
        return id
    }

    /// Takes the next pass, if there is one to compute now, and ends it.
    mutating func pass(now: ContinuousClock.Instant, taking time: Duration = .zero) -> Pass? {
        guard case .compute(let pass) = self.next(now: now).step else {
            return nil
        }
        #expect(self.checkInvariants() == nil)
        self.finished(expertReads: 1, now: now.advanced(by: time))
        #expect(self.checkInvariants() == nil)
        return pass
    }
}

extension HostAdmission.Call {
    static func of(
        _ source: String = "a",
        layer: SparseLayer = .of(1),
        rows: Int,
        deadline: ContinuousClock.Instant? = nil
    ) -> Self {
        Self(source: source, layer: layer, rows: rows, experts: 1, deadline: deadline)
    }
}

extension SparseLayer {
    static func of(_ block: Int) -> SparseLayer { SparseLayer(stack: .decoder, block: block) }
}
