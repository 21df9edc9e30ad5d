// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Testing

/// What a naive observer knows about the sequences: the machine must agree with it after every event.
private struct Ledger {
    struct Entry {
        let id: SequenceID
        let slots: Int
        let inputTokens: Int
        let deadline: ContinuousClock.Instant?

        func isOver(_ now: ContinuousClock.Instant) -> Bool { self.deadline.map { $0 <= now } ?? false }
    }

    let configuration: SchedulerConfiguration
    var waiting: [Entry] = []
    var running: [Entry] = []
    /// Left the queue at an enqueue, and must be in the next plan.
    var expiredEarly: [SequenceID] = []
    var accepted = 0
    var ended = 0

    var usedSlots: Int { self.running.reduce(0) { $0 + $1.slots } }

    mutating func check(_ admission: Admission, of entry: Entry, now: ContinuousClock.Instant) {
        if entry.slots > self.configuration.batchSlots {
            #expect(admission == .rejected(.tooWide(slots: entry.slots, limit: 6), retryAfter: nil))
            return
        }
        if self.waiting.count == self.configuration.queueLimit {
            self.expiredEarly += self.waiting.filter { $0.isOver(now) }.map(\.id)
            self.waiting.removeAll { $0.isOver(now) }
        }
        switch admission {
        case .queued(let ahead):
            #expect(ahead == self.waiting.count)
            self.waiting.append(entry)
            self.accepted += 1
        case .rejected(let reason, let retryAfter):
            #expect(reason == .queueFull(limit: self.configuration.queueLimit))
            #expect(self.waiting.count == self.configuration.queueLimit)
            #expect(retryAfter.map(self.configuration.retryHintBounds.contains) == true)
        }
    }

    mutating func check(_ plan: StepPlan, now: ContinuousClock.Instant) {
        let expired =
            self.expiredEarly + self.waiting.filter { $0.isOver(now) }.map(\.id)
            + self.running.filter { $0.isOver(now) }.map(\.id)
        #expect(plan.expired == expired)
        self.ended += expired.count
        self.expiredEarly = []
        self.waiting.removeAll { $0.isOver(now) }
        self.running.removeAll { $0.isOver(now) }
        // First come, first served: what joins is the front of the queue, and the next one did not fit.
        let joined = Array(self.waiting.prefix(plan.encodes.count))
        #expect(plan.encodes == joined.map(\.id))
        self.waiting.removeFirst(joined.count)
        self.running += joined
        #expect(plan.decodes == self.running.map(\.id))
        let tokens = joined.reduce(0) { $0 + $1.inputTokens }
        #expect(tokens <= self.configuration.encodeTokensPerStep || joined.count == 1)
        if let next = self.waiting.first {
            let lacksSlots = self.usedSlots + next.slots > self.configuration.batchSlots
            let lacksBudget = !joined.isEmpty && tokens + next.inputTokens > self.configuration.encodeTokensPerStep
            #expect(lacksSlots || lacksBudget, "\(next.id) fitted, but did not join")
        }
    }

    mutating func ended(_ id: SequenceID) {
        self.waiting.removeAll { $0.id == id }
        self.running.removeAll { $0.id == id }
        self.ended += 1
    }
}

@Suite("Batch scheduler, simulated")
struct BatchSchedulerSimulationTests {
    @Test("slots stay within bounds, order is kept and every sequence ends once", arguments: [1, 2, 3, 4, 5])
    func simulation(seed: UInt64) {
        var generator = SplitMix(state: seed)
        let configuration = SchedulerConfiguration(batchSlots: 6, queueLimit: 5, encodeTokensPerStep: 40)
        var scheduler = BatchScheduler(configuration: configuration)
        var ledger = Ledger(configuration: configuration)
        let start = ContinuousClock.now
        var number: UInt64 = 0
        for tick in 0..<10_000 {
            let now = start.advanced(by: .milliseconds(tick))
            switch Int.random(in: 0..<10, using: &generator) {
            case 0..<4:
                number += 1
                let life = Duration.milliseconds(Int.random(in: 1...60, using: &generator))
                let entry = Ledger.Entry(
                    id: SequenceID(number),
                    slots: Int.random(in: 1...7, using: &generator),
                    inputTokens: Int.random(in: 0...60, using: &generator),
                    deadline: Bool.random(using: &generator) ? now.advanced(by: life) : nil
                )
                let admission = scheduler.enqueue(
                    entry.id,
                    slots: entry.slots,
                    inputTokens: entry.inputTokens,
                    deadline: entry.deadline,
                    now: now
                )
                ledger.check(admission, of: entry, now: now)
            case 4..<7:
                ledger.check(scheduler.nextStep(now: now), now: now)
            case 7..<9:
                if let finished = ledger.running.randomElement(using: &generator)?.id {
                    scheduler.retired(finished, now: now)
                    ledger.ended(finished)
                }
            default:
                if let left = (ledger.waiting + ledger.running).randomElement(using: &generator)?.id {
                    scheduler.evicted(left)
                    ledger.ended(left)
                }
            }
            #expect(scheduler.freeSlots == configuration.batchSlots - ledger.usedSlots)
            #expect(scheduler.freeSlots >= 0)
            #expect(scheduler.checkInvariants() == nil)
            #expect(scheduler.queuedCount == ledger.waiting.count)
            #expect(scheduler.runningCount == ledger.running.count)
        }
        let inFlight = ledger.waiting.count + ledger.running.count + ledger.expiredEarly.count
        #expect(ledger.accepted == ledger.ended + inFlight)
        #expect(ledger.ended > 1000)
    }

    @Test("under a constant stream of narrow sequences a wide one still gets its turn")
    func noStarvation() {
        var generator = SplitMix(state: 11)
        var scheduler = BatchScheduler(configuration: SchedulerConfiguration(batchSlots: 8, queueLimit: 16))
        var number: UInt64 = 0
        var running: [SequenceID] = []
        let wide = SequenceID(1000)
        let now = ContinuousClock.now
        var waited: Int?
        for step in 0..<200 where waited == nil {
            while scheduler.queuedCount < 16 {
                let isWide = step == 5 && scheduler.queuedCount == 15
                number += 1
                let id = isWide ? wide : SequenceID(number)
                _ = scheduler.enqueue(id, slots: isWide ? 8 : 1, inputTokens: 1, deadline: nil, now: now)
            }
            let plan = scheduler.nextStep(now: now)
            running = plan.decodes
            if plan.encodes.contains(wide) { waited = step - 5 }
            if let finished = running.randomElement(using: &generator) { scheduler.retired(finished, now: now) }
        }
        // One sequence retires a step: 15 are before it, and then 8 slots must fall free.
        #expect(waited.map { $0 <= 15 + 8 } == true)
    }
}
