// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Testing

private let start = ContinuousClock.now

private func at(_ milliseconds: Int) -> ContinuousClock.Instant { start.advanced(by: .milliseconds(milliseconds)) }

private func id(_ value: Int) -> SequenceID { SequenceID(UInt64(value)) }

@Suite("Fairness between callers")
struct FairnessTests {
    private static func needs(
        _ caller: String,
        slots: Int = 1,
        tokens: Int = 1,
        priority: CallPriority = .normal,
        queueTimeout: Duration? = nil
    ) -> SequenceNeeds {
        SequenceNeeds(
            slots: slots,
            inputTokens: 4,
            work: 4 + slots * tokens,
            caller: caller,
            priority: priority,
            queueTimeout: queueTimeout
        )
    }

    @Test("beside four requests of 32 beams, another caller's single row joins in the next step")
    func greedyBeams() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration())
        for number in 1...4 {
            _ = scheduler.enqueue(id(number), Self.needs("greedy", slots: 32, tokens: 1_024), now: at(0))
        }
        #expect(scheduler.nextStep(now: at(1)).encodes == [id(1)])
        _ = scheduler.enqueue(id(5), Self.needs("small"), now: at(2))
        let plan = scheduler.nextStep(now: at(3))
        #expect(plan.encodes == [id(5)] && plan.decodes == [id(1), id(5)])
        #expect(scheduler.freeSlots == 0 && scheduler.guestSlots == 1)
        #expect(scheduler.checkInvariants() == nil)
        // The caller that holds all slots is no guest, and the guests' rows are bounded.
        for number in 6...12 { _ = scheduler.enqueue(id(number), Self.needs("other \(number)"), now: at(4)) }
        #expect(scheduler.nextStep(now: at(5)).encodes == [id(6), id(7), id(8)])
        #expect(scheduler.guestSlots == 4)
        // When the wide one ends, those who wait come before the next wide one, although it came first.
        scheduler.retired(id(1), now: at(6))
        #expect(scheduler.nextStep(now: at(7)).encodes == (9...12).map(id))
        #expect(scheduler.checkInvariants() == nil)
    }

    @Test("guests do not keep a wide request from its slots")
    func wideAmongGuests() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 8))
        _ = scheduler.enqueue(id(1), Self.needs("first", slots: 8, tokens: 10), now: at(0))
        _ = scheduler.nextStep(now: at(0))
        _ = scheduler.enqueue(id(2), Self.needs("wide", slots: 8, tokens: 10), now: at(1))
        var number = 2
        var guests: [SequenceID] = []
        for step in 0..<100 {
            number += 1
            _ = scheduler.enqueue(id(number), Self.needs("guest \(number)", tokens: 50), now: at(step + 2))
            guests += scheduler.nextStep(now: at(step + 2)).encodes
            #expect(scheduler.checkInvariants() == nil)
            if guests.count == 4 { scheduler.retired(guests.removeFirst(), now: at(step + 2)) }
        }
        #expect(!guests.contains(id(2)))
        scheduler.retired(id(1), now: at(200))
        #expect(scheduler.nextStep(now: at(200)).encodes.first == id(2))
    }

    @Test(
        "a caller gets no more than its share of the slots while others wait whose requests fit, and all of them otherwise"
    )
    func share() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 8))
        _ = scheduler.enqueue(id(1), Self.needs("dear", slots: 4, tokens: 1_000), now: at(0))
        _ = scheduler.enqueue(id(2), Self.needs("dear", slots: 2, tokens: 1_000), now: at(0))
        _ = scheduler.enqueue(id(3), Self.needs("dear", slots: 4, tokens: 1_000), now: at(0))
        for number in 11...30 { _ = scheduler.enqueue(id(number), Self.needs("many"), now: at(0)) }
        // Within its share "dear" holds one request, and "many" the rest.
        #expect(scheduler.nextStep(now: at(0)).encodes == [id(1)] + (11...14).map(id))
        scheduler.retired(id(1), now: at(1))
        // It is still the turn of "many", which has had little work, but six slots are its share.
        #expect(scheduler.nextStep(now: at(1)).encodes == [id(15), id(16), id(2)])
        // Slots that the other's next request cannot use are no use to it; that one joins as a guest.
        scheduler.retired(id(2), now: at(2))
        #expect(scheduler.nextStep(now: at(2)).encodes == [id(17), id(18), id(3)])
        #expect(scheduler.freeSlots == 0 && scheduler.checkInvariants() == nil)
    }

    @Test("work is shared out evenly, however many requests a caller sends and however wide they are")
    func evenWork() {
        var generator = SplitMix(state: 7)
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 8, queueLimit: 48))
        var done: [String: Int] = [:]
        var left: [SequenceID: (caller: String, slots: Int, steps: Int)] = [:]
        var number = 0
        // One asks for wide and long answers, one for narrow ones, one for short ones; all of them more than there is room for.
        let kinds: [(String, slots: Int, tokens: Int)] = [("wide", 6, 30), ("narrow", 1, 30), ("short", 2, 3)]
        for step in 0..<30_000 {
            for (caller, slots, tokens) in kinds.shuffled(using: &generator) {
                number += 1
                let needs = Self.needs(caller, slots: slots, tokens: tokens)
                if case .queued = scheduler.enqueue(id(number), needs, now: at(step)) {
                    left[id(number)] = (caller, slots, tokens)
                }
            }
            let plan = scheduler.nextStep(now: at(step))
            for rejected in plan.rejected { left[rejected.id] = nil }
            for running in plan.decodes {
                guard var entry = left[running] else { continue }
                done[entry.caller, default: 0] += entry.slots
                entry.steps -= 1
                left[running] = entry.steps > 0 ? entry : nil
                if entry.steps == 0 { scheduler.retired(running, now: at(step)) }
            }
            if step % 100 == 0 { #expect(scheduler.checkInvariants() == nil) }
        }
        let total = done.values.reduce(0, +)
        for (caller, work) in done {
            #expect(Double(work) / Double(total) > 0.2, "\(caller) got \(work) of \(total)")
        }
    }

    @Test("work that a request was charged for and did not do counts for its caller's next ones")
    func credit() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1))
        // Something of each caller always waits, so that their relative lead is kept.
        var order: [String] = []
        var number = 0
        func add(_ caller: String) -> (SequenceID, SequenceNeeds) {
            number += 1
            return (id(number), Self.needs(caller, tokens: caller == "guarded" ? 1_000 : 10))
        }
        var callers: [SequenceID: String] = [:]
        for caller in ["guarded", "plain", "guarded", "plain"] {
            let (id, needs) = add(caller)
            callers[id] = caller
            _ = scheduler.enqueue(id, needs, now: at(0))
        }
        for step in 0..<60 {
            for joined in scheduler.nextStep(now: at(step)).encodes {
                let caller = callers[joined] ?? ""
                order.append(caller)
                let (next, needs) = add(caller)
                callers[next] = caller
                // Both end after ten tokens.
                scheduler.retired(joined, work: 14, now: at(step))
                _ = scheduler.enqueue(next, needs, now: at(step))
            }
        }
        #expect(order.count { $0 == "guarded" } >= order.count / 4, "\(order)")
    }

    @Test("priority orders a caller's own requests only")
    func priorities() {
        var configuration = SchedulerConfiguration(batchSlots: 1)
        configuration.guestSlots = 0
        var scheduler = BatchScheduler(configuration: configuration)
        _ = scheduler.enqueue(id(1), Self.needs("a", priority: .low), now: at(0))
        _ = scheduler.enqueue(id(2), Self.needs("a"), now: at(0))
        _ = scheduler.enqueue(id(3), Self.needs("b", priority: .low), now: at(0))
        _ = scheduler.enqueue(id(4), Self.needs("a", priority: .high), now: at(0))
        var order: [SequenceID] = []
        for step in 0..<4 {
            order += scheduler.nextStep(now: at(step)).encodes
            if let last = order.last { scheduler.retired(last, now: at(step)) }
        }
        // The first turn is a's, the second b's although its priority is low.
        #expect(order == [id(4), id(3), id(2), id(1)])
    }

    @Test("a request of low priority is passed by 32 of high priority and no more", arguments: [1, 2, 5])
    func noStarvation(perStep: Int) {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 200))
        _ = scheduler.enqueue(id(1), Self.needs("a", priority: .low), now: at(0))
        var number = 1
        var passed = 0
        for step in 0..<100 {
            for _ in 0..<perStep {
                number += 1
                _ = scheduler.enqueue(id(number), Self.needs("a", priority: .high), now: at(step))
            }
            guard let joined = scheduler.nextStep(now: at(step)).encodes.first else { continue }
            scheduler.retired(joined, now: at(step))
            if joined == id(1) { break }
            passed += 1
        }
        #expect(passed == 2 * CallPriority.reach - 1)
    }

    @Test("a full queue takes a newcomer in place of the last request of the caller that has the most places")
    func displaced() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 4))
        for number in 1...4 { _ = scheduler.enqueue(id(number), Self.needs("many"), now: at(0)) }
        guard case .rejected(.queueFull(limit: 4), .some) = scheduler.rejection(from: "many", now: at(0)) else {
            Issue.record("a caller took a place from itself")
            return
        }
        #expect(scheduler.rejection(from: "few", now: at(0)) == nil)
        #expect(scheduler.rejection(of: 2, from: "few", now: at(0)) == nil)
        #expect(scheduler.rejection(of: 3, from: "few", now: at(0)) != nil)
        #expect(scheduler.rejection(of: .max, from: "few", now: at(0)) != nil)
        #expect(scheduler.enqueue(id(5), Self.needs("few"), now: at(0)) == .queued(ahead: 3))
        #expect(scheduler.enqueue(id(6), Self.needs("few"), now: at(0)) == .queued(ahead: 3))
        guard case .rejected(.queueFull(limit: 4), .some) = scheduler.enqueue(id(7), Self.needs("few"), now: at(0))
        else {
            Issue.record("the callers have two places each, and one lost one")
            return
        }
        let plan = scheduler.nextStep(now: at(1))
        #expect(plan.rejected.map(\.id) == [id(4), id(3)])
        #expect(plan.rejected.allSatisfy { $0.reason == .displaced(limit: 4) && $0.retryAfter > .zero })
        #expect(scheduler.checkInvariants() == nil)
        #expect(scheduler.nextStep(now: at(2)).rejected.isEmpty)
    }

    @Test("a request that lost its place, and whose client leaves before the next step, does not end twice")
    func displacedAndLeft() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 2))
        for number in 1...2 { _ = scheduler.enqueue(id(number), Self.needs("many"), now: at(0)) }
        #expect(scheduler.enqueue(id(3), Self.needs("few"), now: at(0)) == .queued(ahead: 1))
        scheduler.evicted(id(2))
        #expect(scheduler.nextStep(now: at(1)).rejected.isEmpty)
        #expect(scheduler.checkInvariants() == nil)
    }

    @Test("slots of running requests whose deadline passes are free again")
    func expiredRunning() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 2))
        _ = scheduler.enqueue(id(1), SequenceNeeds(slots: 2, inputTokens: 1, deadline: at(5)), now: at(0))
        #expect(scheduler.nextStep(now: at(0)).decodes == [id(1)] && scheduler.freeSlots == 0)
        #expect(scheduler.nextStep(now: at(6)).expired == [id(1)] && scheduler.freeSlots == 2)
        #expect(scheduler.checkInvariants() == nil)
    }

    @Test("a request that waits longer than its queue time-out leaves with that reason, one that runs does not")
    func queueTimeout() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1))
        let timeout = Duration.milliseconds(50)
        _ = scheduler.enqueue(id(1), Self.needs("a", queueTimeout: timeout), now: at(0))
        _ = scheduler.enqueue(id(2), Self.needs("a", queueTimeout: timeout), now: at(10))
        #expect(scheduler.nextStep(now: at(20)).decodes == [id(1)])
        #expect(scheduler.nextStep(now: at(59)).rejected.isEmpty)
        let plan = scheduler.nextStep(now: at(60))
        #expect(plan.rejected.map(\.id) == [id(2)] && plan.rejected.first?.reason == .waitedTooLong(timeout))
        #expect(plan.decodes == [id(1)] && plan.expired.isEmpty)
    }

    @Test("the rules hold and every request ends once, in any mix of callers", arguments: [1, 2, 3, 4])
    func simulation(seed: UInt64) {
        var generator = SplitMix(state: seed)
        var configuration = SchedulerConfiguration(batchSlots: 8, queueLimit: 9, encodeTokensPerStep: 30)
        configuration.guestSlots = Int.random(in: 0...3, using: &generator)
        configuration.callerShare = Double.random(in: 0...1, using: &generator)
        var scheduler = BatchScheduler(configuration: configuration)
        var open: Set<SequenceID> = []
        var running: [SequenceID] = []
        var ended = 0
        for tick in 0..<15_000 {
            let now = at(tick)
            switch Int.random(in: 0..<8, using: &generator) {
            case 0..<3:
                let caller = "\(Int.random(in: 0..<5, using: &generator))"
                let life = Duration.milliseconds(Int.random(in: 1...90, using: &generator))
                let needs = SequenceNeeds(
                    slots: Int.random(in: 1...9, using: &generator),
                    inputTokens: Int.random(in: 0...40, using: &generator),
                    work: Int.random(in: 0...400, using: &generator),
                    caller: caller,
                    priority: CallPriority.allCases.randomElement(using: &generator) ?? .low,
                    deadline: Bool.random(using: &generator) ? now.advanced(by: life) : nil,
                    queueTimeout: Bool.random(using: &generator) ? life * 0.5 : nil
                )
                let forecast = scheduler.rejection(from: caller, now: now)
                let admission = scheduler.enqueue(id(tick), needs, now: now)
                if case .queued = admission {
                    let isNew = open.insert(id(tick)).inserted
                    #expect(isNew)
                    #expect(forecast == nil)
                } else if needs.slots <= 8 {
                    #expect(forecast != nil)
                }
            case 3..<6:
                let plan = scheduler.nextStep(now: now)
                running = plan.decodes
                for over in plan.expired + plan.rejected.map(\.id) {
                    let known = open.remove(over)
                    #expect(known != nil)
                    ended += 1
                }
                #expect(Set(running).isSubset(of: open))
                #expect(Set(plan.encodes).isSubset(of: running))
            default:
                guard
                    let next = (Bool.random(using: &generator) ? running.first : open.randomElement(using: &generator))
                else { break }
                if open.remove(next) != nil { ended += 1 }
                running.removeAll { $0 == next }
                if Bool.random(using: &generator) { scheduler.retired(next, work: 3, now: now) }
                scheduler.evicted(next)
            }
            #expect(scheduler.checkInvariants() == nil)
        }
        #expect(ended > 1_000)
    }
}
