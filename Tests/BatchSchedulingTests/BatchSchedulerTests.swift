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

    @Test("sequences that come together are rejected where the queue lacks room for one of them")
    func room() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 4))
        for value in 1...3 {
            let deadline = value == 3 ? seconds(5) : nil
            _ = scheduler.enqueue(id(UInt64(value)), slots: 1, inputTokens: 1, deadline: deadline, now: start)
        }
        #expect(scheduler.rejection(of: 1, now: start) == nil)
        guard case .rejected(let reason, let hint?) = scheduler.rejection(of: 2, now: start) else {
            Issue.record("four places took five")
            return
        }
        #expect(reason == .noRoom(sequences: 2, waiting: 3, limit: 4) && hint > .zero)
        #expect(reason.description.contains("the call has 2 inputs, but 3 requests wait and the limit is 4"))
        // Whose client has given up keeps none out.
        #expect(scheduler.rejection(of: 2, now: seconds(5)) == nil)
        #expect(scheduler.rejection(of: .max, now: start) != nil)
        scheduler.beginDraining()
        #expect(scheduler.rejection(of: 2, now: start) == .rejected(.draining, retryAfter: nil))
    }

    @Test("a full queue rejects the next one with a hint that grows with the time sequences take")
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

    @Test("a sequence wider than the batch is rejected for good")
    func tooWide() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 4))
        let admission = scheduler.enqueue(id(1), slots: 5, inputTokens: 1, deadline: nil, now: start)
        #expect(admission == .rejected(.tooWide(slots: 5, limit: 4), retryAfter: nil))
        #expect(scheduler.isIdle)
    }

    @Test("no sequence overtakes a wide one at the head")
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
        #expect(scheduler.nextStep(now: seconds(1)).decodes == [id(1)])
        #expect(scheduler.nextStep(now: seconds(2)).expired == [id(2)])
        let plan = scheduler.nextStep(now: seconds(5))
        #expect(plan == StepPlan(encodes: [id(3)], decodes: [id(3)], expired: [id(1)]))
        #expect(scheduler.freeSlots == 0)
    }

    @Test("a draining scheduler rejects new sequences and lets the others finish")
    func draining() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: nil, now: start)
        scheduler.beginDraining()
        let admission = scheduler.enqueue(id(2), slots: 1, inputTokens: 1, deadline: nil, now: start)
        #expect(admission == .rejected(.draining, retryAfter: nil))
        #expect(scheduler.nextStep(now: start).encodes == [id(1)])
    }

    @Test("a sequence whose client gave up makes room in a full queue, and is listed in the next plan")
    func expiredMakeRoom() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 1))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: seconds(1), now: start)
        let admission = scheduler.enqueue(id(2), slots: 1, inputTokens: 1, deadline: nil, now: seconds(1))
        #expect(admission == .queued(ahead: 0))
        scheduler.evicted(id(2))
        #expect(!scheduler.isIdle)
        #expect(scheduler.nextStep(now: seconds(1)) == StepPlan(encodes: [], decodes: [], expired: [id(1)]))
        #expect(scheduler.isIdle)
    }

    @Test("the retry hint stays within its bounds", arguments: [(0.0001, 0.05), (1000, 30)])
    func retryHintBounds(serviceSeconds: Double, hintSeconds: Double) {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 1, queueLimit: 1))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: nil, now: start)
        _ = scheduler.nextStep(now: start)
        scheduler.retired(id(1), now: start.advanced(by: .seconds(serviceSeconds)))
        _ = scheduler.enqueue(id(2), slots: 1, inputTokens: 1, deadline: nil, now: start)
        let admission = scheduler.enqueue(id(3), slots: 1, inputTokens: 1, deadline: nil, now: start)
        #expect(admission == .rejected(.queueFull(limit: 1), retryAfter: .seconds(hintSeconds)))
    }

    @Test("news of a sequence that has left is ignored")
    func lateNews() {
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 2))
        _ = scheduler.enqueue(id(1), slots: 1, inputTokens: 1, deadline: seconds(1), now: start)
        _ = scheduler.nextStep(now: start)
        #expect(scheduler.nextStep(now: seconds(1)).expired == [id(1)])
        scheduler.retired(id(1), now: seconds(1))
        scheduler.evicted(id(1))
        scheduler.evicted(id(7))
        #expect(scheduler.freeSlots == 2)
        #expect(scheduler.isIdle)
    }
}
