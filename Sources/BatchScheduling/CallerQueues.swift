// SPDX-License-Identifier: Apache-2.0

/// The sequences that wait, by caller: callers take turns, and each caller's own sequences keep an order of their own.
///
/// Turns are those of ``FairTurns``, at the cost of a sequence's work. A caller's earliest turn goes to its first
/// sequence by priority, whatever sequence it was given for.
struct CallerQueues: Sendable {
    /// A sequence that waits.
    struct Waiting: Sendable, Hashable {
        var id: SequenceID
        var needs: SequenceNeeds
        var since: ContinuousClock.Instant
        /// The place among the caller's own; smaller is earlier.
        fileprivate var place: UInt64
        fileprivate var arrival: UInt64

        /// When it no longer waits.
        var end: ContinuousClock.Instant? {
            let timeout = self.needs.queueTimeout.map { self.since.advanced(by: $0) }
            guard let deadline = self.needs.deadline else { return timeout }
            return timeout.map { min($0, deadline) } ?? deadline
        }

        /// Whether its client has given up.
        func isExpired(_ now: ContinuousClock.Instant) -> Bool { self.needs.deadline.map { $0 <= now } ?? false }

        /// Whether it no longer waits.
        func isOver(_ now: ContinuousClock.Instant) -> Bool { self.end.map { $0 <= now } ?? false }

        fileprivate static func isBefore(_ left: Waiting, _ right: Waiting) -> Bool {
            (left.place, left.arrival) < (right.place, right.arrival)
        }
    }

    private struct Queue: Sendable {
        /// In the order in which they join; never empty.
        var calls: [Waiting] = []
        /// As many, in the same order.
        var turns: [FairTurns.Turn] = []
    }

    private var queues: [String: Queue] = [:]
    private var owners: [SequenceID: String] = [:]
    private var turns = FairTurns()
    private var arrivals: UInt64 = 0
    /// No sequence is over before; may be too early, never too late.
    private var earliestEnd: ContinuousClock.Instant?
    /// Slots that all of them need.
    private(set) var slots = 0

    /// How many wait.
    var count: Int { self.owners.count }

    /// How many callers wait.
    var callerCount: Int { self.queues.count }

    /// Whether a sequence waits.
    func contains(_ id: SequenceID) -> Bool { self.owners[id] != nil }

    /// How many sequences of a caller wait.
    func count(of caller: String) -> Int { self.queues[caller]?.calls.count ?? 0 }

    /// How many wait and are not over.
    func count(now: ContinuousClock.Instant) -> Int {
        guard let earliest = self.earliestEnd, earliest <= now else { return self.count }
        return self.queues.values.reduce(0) { $0 + $1.calls.count { !$0.isOver(now) } }
    }

    /// The callers, earliest turn first, each with its first sequence.
    var heads: [Waiting] {
        self.queues.values
            .compactMap { queue in queue.calls.first.flatMap { call in queue.turns.first.map { ($0, call) } } }
            .sorted { $0.0 < $1.0 }
            .map(\.1)
    }

    /// A sequence begins to wait.
    mutating func add(_ id: SequenceID, _ needs: SequenceNeeds, now: ContinuousClock.Instant) {
        _ = self.turns.arrived(needs.caller, now: now)
        let turn = self.turns.queued(needs.caller, cost: needs.work)
        let place = self.arrivals + UInt64(CallPriority.reach * needs.priority.rawValue)
        let call = Waiting(id: id, needs: needs, since: now, place: place, arrival: self.arrivals)
        self.arrivals += 1
        var queue = self.queues[needs.caller] ?? Queue()
        // Nearly always the end.
        var index = queue.calls.count
        while index > 0, Waiting.isBefore(call, queue.calls[index - 1]) { index -= 1 }
        queue.calls.insert(call, at: index)
        queue.turns.append(turn)
        self.queues[needs.caller] = queue
        self.owners[id] = needs.caller
        self.slots += needs.slots
        if let end = call.end { self.earliestEnd = self.earliestEnd.map { min($0, end) } ?? end }
    }

    /// A caller's first sequence joins.
    mutating func takeFirst(of caller: String) -> Waiting? {
        guard var queue = self.queues[caller], !queue.calls.isEmpty else { return nil }
        let call = queue.calls.removeFirst()
        self.turns.began(queue.turns.removeFirst())
        self.left(call, queue)
        return call
    }

    /// A sequence leaves without joining.
    ///
    /// - Returns: The sequence; nil if it does not wait.
    mutating func remove(_ id: SequenceID) -> Waiting? {
        guard let caller = self.owners[id], var queue = self.queues[caller],
            let index = queue.calls.firstIndex(where: { $0.id == id })
        else { return nil }
        let call = queue.calls.remove(at: index)
        // The others keep the earlier turns.
        queue.turns.removeLast()
        self.turns.credited(caller, cost: call.needs.work, after: queue.turns.last)
        self.left(call, queue)
        return call
    }

    /// The work of a sequence that joined was less than its needs said.
    mutating func credited(_ caller: String, work: Int) {
        self.turns.credited(caller, cost: work, after: self.queues[caller]?.turns.last)
    }

    /// Removes the sequences that are over.
    ///
    /// - Returns: The sequences, in the order in which they came.
    mutating func removeOver(now: ContinuousClock.Instant) -> [Waiting] {
        guard let earliest = self.earliestEnd, earliest <= now else { return [] }
        let all = self.queues.values.flatMap(\.calls)
        let over = all.filter { $0.isOver(now) }.sorted { $0.arrival < $1.arrival }
        for call in over { _ = self.remove(call.id) }
        self.earliestEnd = all.lazy.filter { !$0.isOver(now) }.compactMap(\.end).min()
        return over
    }

    // MARK: - Places

    /// Whether a caller may take places of others for sequences that come together, because others have more.
    ///
    /// - Parameters:
    ///   - caller: The caller.
    ///   - free: How many places are free for it without that.
    ///   - taken: How many it needs beyond.
    /// - Returns: Whether it may.
    func mayDisplace(for caller: String, free: Int, taken: Int) -> Bool {
        var mine = self.count(of: caller) + free
        if taken == 1 { return self.largest(besides: caller).map { $0.count >= mine + 2 } ?? false }
        var others = self.queues.filter { $0.key != caller }.mapValues(\.calls.count)
        for _ in 0..<taken {
            guard let largest = others.max(by: { $0.value < $1.value }), largest.value >= mine + 2 else { return false }
            others[largest.key] = largest.value - 1
            mine += 1
        }
        return true
    }

    /// Takes a place from the caller that has the most of them, for a caller that has fewer by two or more.
    ///
    /// - Returns: The sequence that loses its place, the last of its caller's; nil if none does.
    mutating func displace(for caller: String) -> Waiting? {
        guard let largest = self.largest(besides: caller), largest.count >= self.count(of: caller) + 2,
            let last = self.queues[largest.caller]?.calls.last
        else { return nil }
        return self.remove(last.id)
    }

    private func largest(besides caller: String) -> (caller: String, count: Int)? {
        var largest: (caller: String, count: Int)?
        for (name, queue) in self.queues where name != caller {
            let isLarger = largest.map { (queue.calls.count, $0.caller) > ($0.count, name) } ?? true
            if isLarger { largest = (name, queue.calls.count) }
        }
        return largest
    }

    private mutating func left(_ call: Waiting, _ queue: Queue) {
        self.owners[call.id] = nil
        self.slots -= call.needs.slots
        self.turns.left(call.needs.caller)
        self.queues[call.needs.caller] = queue.calls.isEmpty ? nil : queue
        guard self.owners.isEmpty else { return }
        self.earliestEnd = nil
        self.turns.queueEmptied()
    }

    // MARK: - Rules

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    func checkInvariants() -> String? {
        var calls = 0
        var slots = 0
        for (caller, queue) in self.queues {
            if queue.calls.isEmpty { return "the queue of \(caller) is empty" }
            if queue.calls.count != queue.turns.count { return "\(caller) has \(queue.turns.count) turns" }
            if queue.turns != queue.turns.sorted() { return "the turns of \(caller) are out of order" }
            for (first, second) in zip(queue.calls, queue.calls.dropFirst()) where !Waiting.isBefore(first, second) {
                return "\(second.id) waits behind \(first.id)"
            }
            for call in queue.calls {
                if self.owners[call.id] != caller { return "\(call.id) is not known as \(caller)'s" }
                if let end = call.end, self.earliestEnd.map({ $0 > end }) ?? true {
                    return "the end of \(call.id) is missed"
                }
                slots += call.needs.slots
            }
            calls += queue.calls.count
        }
        if calls != self.owners.count { return "\(calls) wait, but \(self.owners.count) are known" }
        if slots != self.slots { return "\(slots) slots are wanted, but \(self.slots) counted" }
        return nil
    }
}
