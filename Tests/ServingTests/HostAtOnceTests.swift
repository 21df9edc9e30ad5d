// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import BatchScheduling

/// Which calls are computed on the event loop that received them.
@Suite("Calls computed at once")
struct HostAtOnceTests {
    private let now = ContinuousClock.now
    private let admission = HostAdmission(limits: .init(calls: 8, rows: 4096))

    @Test("a small call of the only source is computed at once, and the compute thread has nothing to do")
    func alone() throws {
        var admission = self.admission
        let id = try admission.queue(rows: 3, now: self.now)
        let pass = admission.nextAtOnce(now: self.now)
        #expect(pass == .init(calls: [id], rows: 3))
        #expect(admission.isComputing)
        #expect(admission.waitingCalls == 0)
        #expect(admission.checkInvariants() == nil)
        let hasMore = admission.finishedAtOnce(expertReads: 1, now: self.now)
        #expect(!hasMore)
        #expect(!admission.isComputing)
        #expect(admission.totals.calls == 1)
        #expect(admission.totals.rows == 3)
        let step = admission.next(now: self.now).step
        #expect(step == .wait(until: nil))
    }

    @Test("what comes meanwhile is for the compute thread, once the pass is done")
    func meanwhile() throws {
        var admission = self.admission
        _ = try admission.queue(rows: 1, now: self.now)
        _ = admission.nextAtOnce(now: self.now)
        let second = try admission.queue(rows: 2, now: self.now)
        let again = admission.nextAtOnce(now: self.now)
        #expect(again == nil, "one pass is computed at a time")
        let hasMore = admission.finishedAtOnce(expertReads: 1, now: self.now)
        #expect(hasMore)
        let pass = admission.pass(now: self.now)
        #expect(pass?.calls == [second])
    }

    @Test("calls that wait together are computed together, by the compute thread")
    func together() throws {
        var admission = self.admission
        let first = try admission.queue(rows: 1, now: self.now)
        let second = try admission.queue(rows: 1, now: self.now)
        let pass = admission.nextAtOnce(now: self.now)
        #expect(pass == nil)
        let whole = admission.pass(now: self.now)
        #expect(whole?.calls == [first, second])
    }

    @Test("no call is computed at once while another source calls too")
    func others() throws {
        var admission = self.admission
        let other = try admission.queue("b", rows: 1, now: self.now)
        _ = admission.cancelled(other, now: self.now)
        _ = try admission.queue("a", rows: 1, now: self.now)
        let beside = admission.nextAtOnce(now: self.now.advanced(by: .milliseconds(1)))
        #expect(beside == nil)
        _ = admission.pass(now: self.now)
        let later = self.now.advanced(by: .seconds(1))
        _ = try admission.queue("a", rows: 1, now: later)
        let alone = admission.nextAtOnce(now: later)
        #expect(alone != nil)
    }

    @Test("large calls, calls of trainers and expired calls are not computed at once")
    func unfit() throws {
        var admission = self.admission
        for (rows, kind) in [(64, HostAdmission.Kind.serving), (1, .training), (1, .gradients)] {
            let id = try admission.queue(rows: rows, kind: kind, now: self.now)
            let pass = admission.nextAtOnce(now: self.now)
            #expect(pass == nil, "\(rows) rows, \(kind)")
            _ = admission.cancelled(id, now: self.now)
        }
        let soon = self.now.advanced(by: .milliseconds(1))
        _ = try admission.queue(rows: 1, deadline: soon, now: self.now)
        let late = admission.nextAtOnce(now: soon)
        #expect(late == nil)
    }

    @Test("where passes take long, the event loop goes on reading")
    func slow() throws {
        var admission = self.admission
        _ = try admission.queue(rows: 1, now: self.now)
        _ = admission.pass(now: self.now, taking: .milliseconds(20))
        _ = try admission.queue(rows: 1, now: self.now)
        let pass = admission.nextAtOnce(now: self.now)
        #expect(pass == nil)
    }

    @Test("a host that drains computes what it has, and then wakes its compute thread to end it")
    func draining() throws {
        var admission = self.admission
        _ = try admission.queue(rows: 1, now: self.now)
        admission.beginDraining()
        let pass = admission.nextAtOnce(now: self.now)
        #expect(pass != nil)
        let wakes = admission.finishedAtOnce(expertReads: 1, now: self.now)
        #expect(wakes)
        let step = admission.next(now: self.now).step
        #expect(step == .leave)
    }
}
