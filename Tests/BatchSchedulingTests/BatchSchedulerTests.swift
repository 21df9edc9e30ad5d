// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Testing

private let start = ContinuousClock.now

private func seconds(_ value: Double) -> ContinuousClock.Instant {
    start.advanced(by: .milliseconds(Int64(value * 1000)))
}

private func id(_ value: UInt64) -> SequenceID { SequenceID(value) }

@Suite("Batch scheduler")
struct BatchSchedulerTests {
    @Test("a sequence joins at the next step, runs, and gives its slots back")
    func lifeOfASequence() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 4, queueLimit: 2))
        #expect(
            scheduler.enqueue(id(1), slots: 3, inputTokens: 5, deadline: nil, now: start) == .queued(ahead: 0)
        )
        #expect(scheduler.queuedCount == 1)
        let first = scheduler.nextStep(now: start)
        #expect(first == StepPlan(encodes: [id(1)], decodes: [id(1)], expired: []))
        #expect(scheduler.freeSlots == 1)
        let second = scheduler.nextStep(now: start)
        #expect(second == StepPlan(encodes: [], decodes: [id(1)], expired: []))
        scheduler.retired(id(1), now: seconds(1))
        #expect(scheduler.freeSlots == 4)
        #expect(scheduler.isIdle)
        #expect(scheduler.nextStep(now: seconds(1)).isEmpty)
    }

    @Test("sequences join while others run")
    func continuousBatching() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 2, queueLimit: 8))
        for value in 1...3 {
            _ = scheduler.enqueue(id(UInt64(value)), slots: 1, inputTokens: 1, deadline: nil, now: start)
        }
        #expect(scheduler.nextStep(now: start).encodes == [id(1), id(2)])
        #expect(scheduler.nextStep(now: start).encodes.isEmpty)
        scheduler.retired(id(1), now: seconds(1))
        let plan = scheduler.nextStep(now: seconds(1))
        #expect(plan == StepPlan(encodes: [id(3)], decodes: [id(2), id(3)], expired: []))
    }

    @Test("a full queue turns the next away with a hint that grows with the time sequences take")
    func fullQueue() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 1))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: nil, now: start)
        guard
            case .rejected(.queueFull(limit: 1), let before?) = scheduler.enqueue(
                id(2),
                slots: 1,
                inputTokens: 1,
                deadline: nil,
                now: start
            )
        else {
            Issue.record("the queue of one took two")
            return
        }
        _ = scheduler.nextStep(now: start)
        scheduler.retired(id(1), now: seconds(20))
        _ = scheduler.enqueue(id(3), slots: 1, inputTokens: 1, deadline: nil, now: seconds(20))
        guard
            case .rejected(_, let after?) = scheduler.enqueue(
                id(4),
                slots: 1,
                inputTokens: 1,
                deadline: nil,
                now: seconds(20)
            )
        else {
            Issue.record("the queue of one took two")
            return
        }
        #expect(after > before)
        #expect(after <= .seconds(30))
    }

    @Test("a sequence wider than the batch is turned away for good")
    func tooWide() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 4))
        let admission = scheduler.enqueue(id(1), slots: 5, inputTokens: 1, deadline: nil, now: start)
        #expect(admission == .rejected(.tooWide(slots: 5, limit: 4), retryAfter: nil))
        #expect(scheduler.isIdle)
    }

    @Test("nobody overtakes a wide sequence at the head")
    func wideSequenceDoesNotStarve() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 4))
        _ = scheduler.enqueue(id(1), slots: 2, inputTokens: 1, deadline: nil, now: start)
        _ = scheduler.nextStep(now: start)
        _ = scheduler.enqueue(id(2), slots: 4, inputTokens: 1, deadline: nil, now: start)
        _ = scheduler.enqueue(id(3), slots: 1, inputTokens: 1, deadline: nil, now: start)
        #expect(scheduler.nextStep(now: start).encodes.isEmpty)
        scheduler.retired(id(1), now: seconds(1))
        #expect(scheduler.nextStep(now: seconds(1)).encodes == [id(2)])
        scheduler.retired(id(2), now: seconds(2))
        #expect(scheduler.nextStep(now: seconds(2)).encodes == [id(3)])
    }

    @Test("the encode budget spreads inputs over steps, and a longer input runs alone")
    func encodeBudget() {
        var scheduler = BatchScheduler(
            configuration: SchedulerConfiguration(batchSlots: 8, encodeTokensPerStep: 10)
        )
        for (value, tokens) in [(1, 6), (2, 5), (3, 4), (4, 25), (5, 1)] {
            _ = scheduler.enqueue(id(UInt64(value)), slots: 1, inputTokens: tokens, deadline: nil, now: start)
        }
        #expect(scheduler.nextStep(now: start).encodes == [id(1)])
        #expect(scheduler.nextStep(now: start).encodes == [id(2), id(3)])
        #expect(scheduler.nextStep(now: start).encodes == [id(4)])
        #expect(scheduler.nextStep(now: start).encodes == [id(5)])
    }

    @Test("deadlines end sequences that wait and sequences that run")
    func deadlines() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: seconds(5), now: start)
        _ = scheduler.enqueue(id(2), slots: 1, inputTokens: 1, deadline: seconds(2), now: start)
        _ = scheduler.enqueue(id(3), slots: 1, inputTokens: 1, deadline: nil, now: start)
        #expect(scheduler.nextDeadline == seconds(2))
        #expect(scheduler.nextStep(now: seconds(1)).decodes == [id(1)])
        #expect(scheduler.nextStep(now: seconds(2)).expired == [id(2)])
        let plan = scheduler.nextStep(now: seconds(5))
        #expect(plan == StepPlan(encodes: [id(3)], decodes: [id(3)], expired: [id(1)]))
        #expect(scheduler.freeSlots == 0)
    }

    @Test("a draining scheduler turns everyone away and lets the others finish")
    func draining() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: nil, now: start)
        scheduler.beginDraining()
        let admission = scheduler.enqueue(id(2), slots: 1, inputTokens: 1, deadline: nil, now: start)
        #expect(admission == .rejected(.draining, retryAfter: nil))
        #expect(scheduler.nextStep(now: start).encodes == [id(1)])
    }

    @Test("whatever happens, slots stay within bounds and every sequence ends once", arguments: [1, 2, 3, 4, 5])
    func simulation(seed: UInt64) {
        var generator = SplitMix(state: seed)
        let configuration = SchedulerConfiguration(batchSlots: 6, queueLimit: 5, encodeTokensPerStep: 40)
        var scheduler = BatchScheduler(configuration: configuration)
        var slots: [SequenceID: Int] = [:]
        var waiting: [SequenceID] = []
        var running: Set<SequenceID> = []
        var ended = 0
        var accepted = 0
        var next: UInt64 = 0
        for tick in 0..<20_000 {
            let now = start.advanced(by: .milliseconds(tick))
            switch Int.random(in: 0..<10, using: &generator) {
            case 0..<4:
                next += 1
                let width = Int.random(in: 1...7, using: &generator)
                let deadline =
                    Bool.random(using: &generator)
                    ? now.advanced(by: .milliseconds(Int.random(in: 1...60, using: &generator))) : nil
                let admission = scheduler.enqueue(
                    id(next),
                    slots: width,
                    inputTokens: Int.random(in: 1...60, using: &generator),
                    deadline: deadline,
                    now: now
                )
                switch admission {
                case .queued(let ahead):
                    #expect(ahead == waiting.count)
                    waiting.append(id(next))
                    slots[id(next)] = width
                    accepted += 1
                case .rejected(let reason, _):
                    #expect(width > 6 || waiting.count == 5, "\(reason)")
                }
            case 4..<7:
                let plan = scheduler.nextStep(now: now)
                for expired in plan.expired {
                    #expect(waiting.contains(expired) != running.contains(expired))
                    waiting.removeAll { $0 == expired }
                    running.remove(expired)
                    ended += 1
                }
                #expect(plan.encodes == Array(waiting.prefix(plan.encodes.count)))
                waiting.removeFirst(plan.encodes.count)
                running.formUnion(plan.encodes)
                #expect(Set(plan.decodes) == running)
            case 7..<9:
                if let finished = running.sorted().first {
                    scheduler.retired(finished, now: now)
                    running.remove(finished)
                    ended += 1
                }
            default:
                if let left = (waiting + running.sorted()).randomElement(using: &generator) {
                    scheduler.evicted(left)
                    waiting.removeAll { $0 == left }
                    running.remove(left)
                    ended += 1
                }
            }
            let used = running.reduce(0) { $0 + (slots[$1] ?? 0) }
            #expect(scheduler.freeSlots == 6 - used)
            #expect(used <= 6)
            #expect(scheduler.queuedCount == waiting.count)
            #expect(scheduler.runningCount == running.count)
        }
        #expect(accepted == ended + waiting.count + running.count)
        #expect(ended > 1000)
    }
}

/// SplitMix64, so that a failing simulation can be repeated.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
