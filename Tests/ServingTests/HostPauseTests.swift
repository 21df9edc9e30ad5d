// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import Testing

@testable import BatchScheduling
@testable import ExpertServing

/// Served calls in the pauses of a trainer's passes.
@Suite
struct HostPauseTests {
    private let now = ContinuousClock.now

    private func machine(rows: Int = 100) -> HostAdmission {
        HostAdmission(limits: .init(calls: 64, rows: 4096), batching: .init(rows: rows))
    }

    /// A machine that computes a trainer's call.
    private func whileTraining(_ kind: HostAdmission.Kind = .gradients) throws -> HostAdmission {
        var admission = self.machine()
        _ = try admission.queue("trainer", rows: 1000, kind: kind, now: self.now)
        guard case .compute = admission.next(now: self.now).step else {
            Issue.record("the trainer's call is not computed")
            return admission
        }
        return admission
    }

    @Test(
        "What came for gateways is computed in the pause, together, and no other call of the trainer",
        arguments: [
            HostAdmission.Kind.training, .gradients,
        ]
    )
    func pause(kind: HostAdmission.Kind) throws {
        var admission = try self.whileTraining(kind)
        let empty = admission.nextBeside(0, now: self.now)
        #expect(empty == .init())
        let more = try admission.queue("trainer", rows: 500, kind: kind, now: self.now)
        let first = try admission.queue("a", rows: 1, now: self.now)
        let other = try admission.queue("b", layer: .of(3), rows: 2, now: self.now)
        let second = try admission.queue("c", rows: 3, now: self.now)
        #expect(admission.waitingCalls == 4 && admission.computingCalls == 1)

        let beside = admission.nextBeside(0, now: self.now)
        #expect(beside == .init(pass: .init(calls: [first, second], rows: 4)))
        #expect(admission.checkInvariants() == nil)
        #expect(admission.computingCalls == 3)
        admission.finished(expertReads: 1, now: self.now)
        #expect(admission.computingCalls == 1)
        let next = admission.nextBeside(1, now: self.now)
        #expect(next == .init(pass: .init(calls: [other], rows: 2)))
        admission.finished(expertReads: 1, now: self.now)
        let none = admission.nextBeside(2, now: self.now)
        #expect(none == .init())

        // Training has ended; what is left is the trainer's.
        admission.finished(expertReads: 1, now: self.now)
        #expect(admission.checkInvariants() == nil)
        let last = admission.pass(now: self.now)
        #expect(last == .init(calls: [more], rows: 500))
        #expect(admission.totals == .init(passes: 4, calls: 5, rows: 1506, namedExperts: 5, expertReads: 4))
    }

    @Test("Training goes on after a few passes, however much is served")
    func training() throws {
        var admission = try self.whileTraining()
        var passes = 0
        for layer in 0..<20 { _ = try admission.queue("a", layer: .of(layer), rows: 1, now: self.now) }
        while admission.nextBeside(passes, now: self.now).pass != nil {
            passes += 1
            admission.finished(expertReads: 1, now: self.now)
        }
        #expect(passes == 4)
        #expect(admission.waitingCalls == 16)
        let again = admission.nextBeside(0, now: self.now)
        #expect(again.pass != nil)
    }

    @Test("A call that expired is not computed in a pause, and one that was cancelled in it is answered")
    func expired() throws {
        var admission = try self.whileTraining()
        let soon = self.now.advanced(by: .milliseconds(1))
        let late = try admission.queue("a", rows: 1, deadline: soon, now: self.now)
        let alone = admission.nextBeside(0, now: soon)
        #expect(alone == .init(expired: [late]))
        let other = try admission.queue("a", rows: 1, now: soon)
        #expect(admission.nextBeside(0, now: soon) == .init(pass: .init(calls: [other], rows: 1)))
        let isDiscarded = admission.cancelled(other, now: soon)
        #expect(!isDiscarded)
        #expect(admission.checkInvariants() == nil)
        admission.finished(expertReads: 1, now: soon)
        admission.finished(expertReads: 1, now: soon)
        #expect(admission.checkInvariants() == nil)
        #expect(admission.computingCalls == 0)
    }

    @Test("A host that drains computes what waits in pauses and after them, and leaves")
    func draining() throws {
        var admission = try self.whileTraining()
        let served = try admission.queue("a", rows: 1, now: self.now)
        admission.beginDraining()
        #expect(admission.nextBeside(0, now: self.now).pass?.calls == [served])
        admission.finished(expertReads: 1, now: self.now)
        admission.finished(expertReads: 1, now: self.now)
        #expect(admission.next(now: self.now).step == .leave)
    }

    @Test("The time of pauses does not count as a pass's own")
    func pace() throws {
        var admission = self.machine()
        // A training pass of 100 rows in 10 ms, of which a served call takes 8: 20 us a row, and 8 ms for one row.
        for _ in 0..<200 {
            _ = try admission.queue("trainer", rows: 100, kind: .gradients, now: self.now)
            _ = admission.next(now: self.now)
            _ = try admission.queue("a", rows: 1, now: self.now)
            _ = admission.nextBeside(0, now: self.now)
            admission.finished(expertReads: 1, now: self.now.advanced(by: .milliseconds(8)))
            admission.finished(expertReads: 1, now: self.now.advanced(by: .milliseconds(10)))
        }
        for index in 0..<64 { _ = try admission.queue("\(index)", rows: 10, now: self.now) }
        let refused = admission.arrived(.of("late", rows: 1), now: self.now)
        // 640 rows, of which 101 take 10 ms or a little less; with the pause counted twice they would take 18.
        guard case .refuse(_, let retryAfter) = refused else {
            Issue.record("a call was not refused: \(refused)")
            return
        }
        #expect((55...75).contains(Int(retryAfter / .milliseconds(1))), "\(retryAfter)")
    }

    @Test("Served calls are expected for a second after the last one")
    func serving() throws {
        var admission = self.machine()
        #expect(!admission.isServing(now: self.now))
        _ = try admission.queue("trainer", rows: 1, kind: .training, now: self.now)
        #expect(!admission.isServing(now: self.now))
        _ = try admission.queue("a", rows: 1, now: self.now)
        #expect(admission.isServing(now: self.now.advanced(by: .milliseconds(900))))
        #expect(!admission.isServing(now: self.now.advanced(by: .milliseconds(1100))))
    }

    @Test("A thread leaves its processor for an eleventh of its time at most")
    func courtesy() {
        var courtesy = Courtesy()
        var (now, away) = (self.now, Duration.zero)
        for taken in [1, 1, 4000, 60, 60, 1] {
            var kept = Duration.zero
            while !courtesy.isDue(now: now) {
                now = now.advanced(by: .microseconds(1))
                kept += .microseconds(1)
            }
            #expect(kept == away * 10)
            let start = now
            now = now.advanced(by: .microseconds(taken))
            courtesy.returned(from: start, at: now)
            away = .microseconds(taken)
        }
    }
}
