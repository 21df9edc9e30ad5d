// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import Testing

@testable import BatchScheduling
@testable import ExpertServing

/// Which calls an expert host computes together, and in which order.
@Suite
struct HostBatchingTests {
    private let now = ContinuousClock.now
    private let limits = HostAdmission.Limits(calls: 64, rows: 4096)

    private func machine(rows: Int = 100, window: Duration = .zero) -> HostAdmission {
        HostAdmission(limits: self.limits, batching: .init(rows: rows, window: window))
    }

    @Test("A pass takes the calls waiting for its layer, from every gateway, up to the limit in rows")
    func together() throws {
        var admission = self.machine()
        let first = try admission.queue("a", rows: 40, now: self.now)
        let other = try admission.queue("b", layer: .of(3), rows: 10, now: self.now)
        let second = try admission.queue("c", rows: 40, now: self.now)
        let tooMuch = try admission.queue("d", rows: 30, now: self.now)
        let small = try admission.queue("e", rows: 20, now: self.now)
        let passes = (0..<3).map { _ in admission.pass(now: self.now) }
        #expect(passes[0] == .init(calls: [first, second, small], rows: 100))
        #expect(passes[1] == .init(calls: [other], rows: 10))
        #expect(passes[2] == .init(calls: [tooMuch], rows: 30))
        #expect(admission.waitingRows == 0)
        #expect(admission.totals == .init(passes: 3, calls: 5, rows: 140, namedExperts: 5, expertReads: 3))
    }

    @Test("Calls for gradients and for outputs of one layer are computed apart")
    func kinds() throws {
        var admission = self.machine()
        let forward = try admission.queue("a", rows: 10, now: self.now)
        let backward = try admission.queue("b", rows: 10, kind: .gradients, now: self.now)
        let second = try admission.queue("c", rows: 10, kind: .gradients, now: self.now)
        let third = try admission.queue("d", rows: 10, now: self.now)
        let passes = [admission.pass(now: self.now), admission.pass(now: self.now)]
        #expect(passes == [.init(calls: [forward, third], rows: 20), .init(calls: [backward, second], rows: 20)])
    }

    @Test("A trainer's calls for outputs are computed apart from those of gateways")
    func trainers() throws {
        var admission = self.machine()
        let served = try admission.queue("a", rows: 10, now: self.now)
        let training = try admission.queue("b", rows: 10, kind: .training, now: self.now)
        let second = try admission.queue("b", rows: 10, kind: .training, now: self.now)
        let third = try admission.queue("c", rows: 10, now: self.now)
        let passes = [admission.pass(now: self.now), admission.pass(now: self.now)]
        #expect(passes == [.init(calls: [served, third], rows: 20), .init(calls: [training, second], rows: 20)])
    }

    @Test("A call larger than a pass is computed alone")
    func large() throws {
        var admission = self.machine(rows: 10)
        let large = try admission.queue("a", rows: 50, now: self.now)
        let small = try admission.queue("b", rows: 1, now: self.now)
        let passes = [admission.pass(now: self.now), admission.pass(now: self.now)]
        #expect(passes == [.init(calls: [large], rows: 50), .init(calls: [small], rows: 1)])
    }

    @Test("Calls that expired or were cancelled are in no pass")
    func gone() throws {
        var admission = self.machine()
        let soon = self.now.advanced(by: .milliseconds(1))
        let late = try admission.queue("a", rows: 1, deadline: soon, now: self.now)
        let cancelled = try admission.queue("b", rows: 1, now: self.now)
        let stays = try admission.queue("c", rows: 1, now: self.now)
        _ = admission.cancelled(cancelled, now: self.now)
        let next = admission.next(now: soon)
        #expect(next == .init(expired: [late], step: .compute(.init(calls: [stays], rows: 1))))
    }

    @Test("A gateway that sends one call at a time waits for few calls of one that sends hundreds")
    func fairness() throws {
        var admission = self.machine(rows: 1)
        for _ in 0..<30 {
            _ = try admission.queue("flood", rows: 8, now: self.now)
        }
        var time = self.now
        for _ in 0..<10 {
            let small = try admission.queue("polite", rows: 8, now: time)
            var waited = 0
            while let pass = admission.pass(now: time), pass.calls != [small] {
                waited += 1
                // The flood continues.
                _ = try admission.queue("flood", rows: 8, now: time)
            }
            #expect(waited <= 2)
            time = time.advanced(by: .milliseconds(1))
        }
    }

    @Test("Under a flood every gateway finds room, and the flood gets a share of the queue; alone it gets all of it")
    func shares() throws {
        var admission = self.machine()
        for _ in 0..<64 {
            _ = try admission.queue("flood", rows: 1, now: self.now)
        }
        let full = admission.arrived(.of("flood", rows: 1), now: self.now)
        #expect(full == .refuse(.calls(limit: 64), retryAfter: .milliseconds(1)))
        let pass = admission.pass(now: self.now)
        #expect(pass?.calls.count == 64)

        _ = try admission.queue("polite", rows: 1, now: self.now)
        var taken = 0
        while case .queue = admission.arrived(.of("flood", rows: 1), now: self.now) {
            taken += 1
        }
        #expect(taken == 32)
        let refused = admission.arrived(.of("flood", rows: 1), now: self.now)
        #expect(refused == .refuse(.share(calls: 32, rows: 32), retryAfter: .milliseconds(1)))
        _ = try admission.queue("polite", rows: 1, now: self.now)
    }

    @Test("A lone gateway never waits for companions")
    func alone() throws {
        var admission = self.machine(window: .microseconds(200))
        for step in 0..<20 {
            let time = self.now.advanced(by: .milliseconds(step))
            _ = try admission.queue("a", rows: 1, now: time)
            let pass = admission.pass(now: time)
            #expect(pass != nil)
        }
    }

    /// A machine in which two gateways went through some layers, `b` half a millisecond after each of its answers.
    private func acquainted(rows: Int = 100) throws -> (machine: HostAdmission, time: ContinuousClock.Instant) {
        var admission = self.machine(rows: rows, window: .milliseconds(1))
        var time = self.now
        for layer in [1, 3, 1, 3, 1] {
            _ = try admission.queue("b", layer: .of(layer), rows: 1, now: time)
            _ = admission.pass(now: time, taking: .milliseconds(10))
            time = time.advanced(by: .milliseconds(10) + .microseconds(500))
        }
        // b's call for layer 3 is due now; it was answered half a millisecond ago.
        return (admission, time.advanced(by: .microseconds(-300)))
    }

    @Test("A call waits for another gateway's expected call for its layer, and no longer")
    func window() throws {
        var (admission, time) = try self.acquainted()
        let first = try admission.queue("a", layer: .of(3), rows: 1, now: time)
        let waiting = admission.next(now: time)
        // 300 us until it is due, a quarter of 500 us and 50 us to spare.
        let end = time.advanced(by: .microseconds(300 + 125 + 50))
        #expect(waiting.step == .wait(until: end))
        let stillWaiting = admission.next(now: end.advanced(by: .microseconds(-1)))
        #expect(stillWaiting.step == .wait(until: end))
        let arrival = time.advanced(by: .microseconds(250))
        let inTime = try admission.queue("b", layer: .of(3), rows: 1, now: arrival)
        let both = admission.pass(now: arrival, taking: .milliseconds(10))
        #expect(both == .init(calls: [first, inTime], rows: 2))

        (admission, time) = try self.acquainted()
        let lone = try admission.queue("a", layer: .of(3), rows: 1, now: time)
        _ = admission.next(now: time)
        let over = admission.pass(now: end)
        #expect(over == .init(calls: [lone], rows: 1))
    }

    @Test("No wait is longer than half a pass")
    func shortPasses() throws {
        var (admission, time) = try self.acquainted()
        for _ in 0..<60 {
            _ = try admission.queue("c", layer: .of(5), rows: 1, now: time)
            _ = admission.pass(now: time, taking: .microseconds(100))
        }
        time = time.advanced(by: .microseconds(100))
        _ = try admission.queue("a", layer: .of(3), rows: 1, now: time)
        let next = admission.next(now: time)
        // b is due in 200 us, and a pass takes half of that.
        guard case .compute = next.step else {
            Issue.record("the call waits: \(next)")
            return
        }
    }

    @Test(
        "Nothing waits with other work at hand, with rows enough, close to a deadline, while leaving, or for the wrong layer",
        arguments: ["other layer", "rows", "deadline", "leaving", "wrong layer", "too early", "too late"]
    )
    func noWindow(reason: String) throws {
        var (admission, time) = try self.acquainted(rows: 8)
        switch reason {
        case "too early": time = time.advanced(by: .microseconds(-199) + .milliseconds(-1))
        case "too late": time = time.advanced(by: .microseconds(476))
        default: break
        }
        _ = try admission.queue(
            "a",
            layer: .of(reason == "wrong layer" ? 1 : 3),
            rows: reason == "rows" ? 8 : 1,
            deadline: reason == "deadline" ? time.advanced(by: .microseconds(150)) : nil,
            now: time
        )
        if reason == "other layer" {
            _ = try admission.queue("a", layer: .of(5), rows: 1, now: time)
        }
        if reason == "leaving" {
            admission.beginLeaving()
        }
        let pass = admission.pass(now: time)
        #expect(pass != nil)
    }

    @Test("If waits are fruitless, few passes wait; once they pay off again, all do")
    func patience() {
        var patience = CompanionPatience()
        var waits = 0
        for _ in 0..<200 where patience.mayWait() {
            waits += 1
            patience.waited(broughtCompanions: false)
        }
        #expect(
            waits == CompanionPatience.attempts + (200 - CompanionPatience.attempts) / (CompanionPatience.pause + 1)
        )
        waits = 0
        for _ in 0..<200 where patience.mayWait() {
            waits += 1
            patience.waited(broughtCompanions: true)
        }
        #expect(waits >= 200 - CompanionPatience.pause)
    }

    @Test("Sources that left are forgotten")
    func memory() {
        var turns = FairTurns()
        for index in 0..<1000 {
            _ = turns.arrived("\(index)", now: self.now.advanced(by: .milliseconds(100 * index)))
        }
        #expect(turns.sourceCount <= 17)
    }

    @Test("The rows of a pass are sorted by expert, and every call gets its own back")
    func layout() {
        let calls: [[SwitchModel.ExpertRows]] = [
            [.init(expert: 1, rows: 2), .init(expert: 4, rows: 1)],
            [.init(expert: 0, rows: 1), .init(expert: 4, rows: 3)],
            [.init(expert: 1, rows: 5)],
        ]
        let batch = ForwardBatch(calls)
        #expect(batch.rows == 12)
        #expect(
            batch.groups == [.init(expert: 0, rows: 1), .init(expert: 1, rows: 7), .init(expert: 4, rows: 4)]
        )
        #expect(batch.runs[0] == [.init(callRow: 0, row: 1, rows: 2), .init(callRow: 2, row: 8, rows: 1)])
        #expect(batch.runs[1] == [.init(callRow: 0, row: 0, rows: 1), .init(callRow: 1, row: 9, rows: 3)])
        #expect(batch.runs[2] == [.init(callRow: 0, row: 3, rows: 5)])
    }
}
