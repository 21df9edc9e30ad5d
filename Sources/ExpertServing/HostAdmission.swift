// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import SwitchyardTypes

/// Which `Forward` calls an expert host accepts, in which order it computes them, and which ones together: a pure
/// machine.
///
/// One pass over the experts' weights is computed at a time, since it already uses all threads. The next pass starts
/// with the call whose turn it is among the gateways (``FairTurns``) and takes along calls that wait for the same
/// sparse layer, so that weights are read once for all of them. The queue is bounded in calls and in token rows: a
/// call that does not fit is refused at once, so that the gateway can try another replica while the layer's deadline
/// still allows it.
struct HostAdmission: Sendable {
    /// Limits of the queue.
    struct Limits: Sendable, Equatable {
        /// Calls that may wait, not counting calls being computed; at least 1.
        var calls: Int
        /// Token rows of the waiting calls; at least as many as one call may have.
        var rows: Int
    }

    /// How calls are batched.
    struct Batching: Sendable, Equatable {
        /// Token rows up to which a pass takes more calls; 1 computes every call alone.
        ///
        /// A single larger call is still computed.
        var rows = 1024

        /// How long the host may wait for companions of a call while there is nothing else to compute.
        ///
        /// It waits only for gateways expected to call for the same layer within that time (``CallForecast``), so
        /// never if there is just one gateway; no longer than half an average pass; and seldom after fruitless waits
        /// (``CompanionPatience``).
        var window = Duration.zero
    }

    /// One call, until the host has answered it.
    struct CallID: Hashable, Sendable {
        let rawValue: UInt64
    }

    /// What the machine knows about a call.
    struct Call: Sendable, Equatable {
        /// The connection that it arrived on: one gateway, as far as a host can tell.
        var source: String
        /// The sparse layer whose experts it names.
        var layer: SparseLayer
        /// Its token rows, at least 1.
        var rows: Int
        /// The experts it names.
        var experts: Int
        /// When the caller stops waiting.
        var deadline: ContinuousClock.Instant?
    }

    /// What to do with a call that arrived.
    enum OnArrival: Sendable, Equatable {
        /// Keep the call's work until ``HostAdmission/next(now:)`` names it; wake the compute thread.
        case queue(CallID)
        /// Answer `RESOURCE_EXHAUSTED` and say when to retry.
        case refuse(Refusal, retryAfter: Duration)
        /// Answer `UNAVAILABLE`: the host has drained.
        case refuseDraining
        /// Answer `DEADLINE_EXCEEDED`: the caller no longer waits for the answer.
        case refuseExpired
    }

    /// Why a call has no room.
    enum Refusal: Sendable, Equatable {
        /// The most calls are already waiting.
        case calls(limit: Int)
        /// With this call, too many rows would wait.
        case rows(waiting: Int, limit: Int)
        /// Other gateways call too, and this one holds more of the queue than is left.
        case share(calls: Int, rows: Int)
    }

    /// Calls computed together.
    struct Pass: Sendable, Equatable {
        /// The calls, at least one; the first is the one whose turn it was.
        var calls: [CallID]
        /// Token rows of all of them.
        var rows: Int
    }

    /// What the compute thread does next.
    struct Next: Sendable, Equatable {
        enum Step: Sendable, Equatable {
            /// Compute these calls, then report ``HostAdmission/finished(expertReads:now:)``.
            case compute(Pass)
            /// Wait for the next arrival, at most until the given time.
            case wait(until: ContinuousClock.Instant?)
            /// End: the host has drained.
            case leave
        }

        /// Calls whose deadline passed while they waited: answer `DEADLINE_EXCEEDED`, compute nothing.
        var expired: [CallID] = []
        var step: Step
    }

    /// Work computed since the host started.
    struct Totals: Sendable, Equatable {
        var passes: UInt64 = 0
        var calls: UInt64 = 0
        var rows: UInt64 = 0
        /// Experts that the calls named, each call by itself.
        var namedExperts: UInt64 = 0
        /// Experts whose weights were read: each once per pass.
        var expertReads: UInt64 = 0
    }

    private enum Phase {
        /// Accepts calls. Can transition to `leaving` and `draining`.
        case open
        /// Announces that it is leaving, and accepts calls that still arrive. Can transition to `draining`.
        case leaving
        /// Accepts no calls and finishes current ones. Final: the compute thread ends when nothing is left.
        case draining
    }

    private struct Entry {
        let id: CallID
        let call: Call
        /// The call's place in the order among all sources.
        let turn: FairTurns.Turn
    }

    private struct Computing {
        let pass: Pass
        let sources: [String]
        let namedExperts: Int
        let start: ContinuousClock.Instant
    }

    /// How long after its last call a source is expected to call again.
    private static let activeTime = Duration.milliseconds(50)

    /// Limits of the queue.
    let limits: Limits

    /// How calls are batched.
    let batching: Batching

    /// Work computed since the host started.
    private(set) var totals = Totals()

    private var phase = Phase.open
    private var queue: [Entry] = []
    private var turns = FairTurns()
    private var pace = ComputePace()
    private var forecast = CallForecast()
    private var patience = CompanionPatience()
    /// The current wait for companions: since when, and how many calls there were then.
    private var wait: (start: ContinuousClock.Instant, calls: Int)?
    private var computing: Computing?
    private var nextID: UInt64 = 0

    /// Creates the machine of a host that takes calls.
    ///
    /// - Parameters:
    ///   - limits: Limits of the queue.
    ///   - batching: How calls are batched.
    init(limits: Limits, batching: Batching = Batching()) {
        precondition(limits.calls >= 1 && limits.rows >= 1, "a queue with the limits \(limits) cannot take any call")
        self.limits = limits
        self.batching = batching
    }

    /// Calls that wait.
    var waitingCalls: Int { self.queue.count }

    /// Token rows of the calls that wait.
    private(set) var waitingRows = 0

    /// Calls being computed.
    var computingCalls: Int { self.computing?.pass.calls.count ?? 0 }

    /// Whether the host is leaving.
    var isLeaving: Bool { self.phase != .open }

    /// Whether new calls are refused because the host has left its connections.
    var isDraining: Bool { self.phase == .draining }

    /// Handles the arrival of a valid call.
    ///
    /// - Parameters:
    ///   - call: The call.
    ///   - now: The current time.
    /// - Returns: What to do with the call.
    mutating func arrived(_ call: Call, now: ContinuousClock.Instant) -> OnArrival {
        guard self.phase != .draining else {
            return .refuseDraining
        }
        if let deadline = call.deadline, deadline <= now {
            return .refuseExpired
        }
        let held = self.turns.arrived(call.source, now: now)
        if let refusal = self.refusal(of: call, held: held, now: now) {
            return .refuse(refusal, retryAfter: self.pace.retryDelay(rows: self.waitingRows))
        }
        let id = CallID(rawValue: self.nextID)
        self.nextID += 1
        // Reading an expert's weights costs about as much as computing four rows.
        let turn = self.turns.queued(call.source, cost: call.rows + 4 * call.experts, rows: call.rows)
        self.queue.append(Entry(id: id, call: call, turn: turn))
        self.waitingRows += call.rows
        self.forecast.called(call.source, layer: call.layer, now: now)
        return .queue(id)
    }

    /// Handles a caller's cancellation.
    ///
    /// - Parameters:
    ///   - id: The call.
    ///   - now: The current time.
    /// - Returns: Whether the call still waited: its work can be discarded. A call that is being computed or is
    ///   already answered continues unaffected.
    mutating func cancelled(_ id: CallID, now: ContinuousClock.Instant) -> Bool {
        guard let index = self.queue.firstIndex(where: { $0.id == id }) else {
            return false
        }
        let entry = self.queue.remove(at: index)
        self.left(entry)
        self.forecast.ended(entry.call.source, now: now)
        return true
    }

    /// Asks for the next work of the free compute thread.
    ///
    /// - Parameter now: The current time.
    /// - Returns: What to compute, and which calls expired.
    mutating func next(now: ContinuousClock.Instant) -> Next {
        precondition(self.computing == nil, "the pass that is being computed has not been reported as finished")
        let expired = self.takeExpired(now: now)
        guard let lead = self.queue.min(by: { $0.turn < $1.turn }) else {
            self.turns.queueEmptied()
            self.wait = nil
            return Next(expired: expired, step: self.phase == .draining ? .leave : .wait(until: nil))
        }
        if let time = self.timeToWaitUntil(lead: lead, now: now) {
            return Next(expired: expired, step: .wait(until: time))
        }
        return Next(expired: expired, step: .compute(self.takePass(lead: lead, now: now)))
    }

    /// Records that the current pass is done, whatever its result.
    ///
    /// - Parameters:
    ///   - expertReads: Experts whose weights were read.
    ///   - now: The current time.
    mutating func finished(expertReads: Int, now: ContinuousClock.Instant) {
        guard let computing = self.computing else {
            preconditionFailure("nothing is being computed")
        }
        self.computing = nil
        for source in computing.sources {
            self.forecast.ended(source, now: now)
        }
        self.pace.computed(rows: computing.pass.rows, time: computing.start.duration(to: now))
        self.totals.passes += 1
        self.totals.calls += UInt64(computing.pass.calls.count)
        self.totals.rows += UInt64(computing.pass.rows)
        self.totals.namedExperts += UInt64(computing.namedExperts)
        self.totals.expertReads += UInt64(expertReads)
    }

    /// Announces from now on that the host is leaving; calls that still arrive are accepted.
    mutating func beginLeaving() {
        if self.phase == .open {
            self.phase = .leaving
        }
    }

    /// Refuses new calls from now on and ends when the current ones are done.
    mutating func beginDraining() {
        self.phase = .draining
    }

    // MARK: - Private

    /// Why a call has no room.
    ///
    /// Once others call too, a source may hold no more than is left free: the dynamic threshold of Choudhury and
    /// Hahne (https://doi.org/10.1109/90.664262) with the factor 1. So one source that floods the host gets half of
    /// the queue, two get a third each, and a source that calls now and then finds room. The one deviation: a single
    /// source may fill the queue.
    private func refusal(
        of call: Call,
        held: (calls: Int, rows: Int),
        now: ContinuousClock.Instant
    ) -> Refusal? {
        guard self.queue.count < self.limits.calls else {
            return .calls(limit: self.limits.calls)
        }
        guard self.waitingRows + call.rows <= self.limits.rows else {
            return .rows(waiting: self.waitingRows, limit: self.limits.rows)
        }
        let isOverShare =
            held.calls > self.limits.calls - self.queue.count || held.rows > self.limits.rows - self.waitingRows
        if isOverShare, self.turns.activeSources(now: now, within: Self.activeTime) > 1 {
            return .share(calls: held.calls, rows: held.rows)
        }
        return nil
    }

    private mutating func takeExpired(now: ContinuousClock.Instant) -> [CallID] {
        guard self.queue.contains(where: { $0.call.isExpired(now) }) else {
            return []
        }
        var expired: [CallID] = []
        for entry in self.queue where entry.call.isExpired(now) {
            expired.append(entry.id)
            self.left(entry)
            self.forecast.ended(entry.call.source, now: now)
        }
        self.queue.removeAll { $0.call.isExpired(now) }
        return expired
    }

    /// Until when to wait for companions, or nil to compute now.
    private mutating func timeToWaitUntil(lead: Entry, now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
        guard self.batching.window > .zero, self.phase == .open, self.waitingRows < self.batching.rows,
            // Waiting gains nothing if something else could be computed meanwhile.
            self.queue.allSatisfy({ $0.call.layer == lead.call.layer })
        else {
            return nil
        }
        let window = min(self.batching.window, self.pace.passTime.map { $0 / 2 } ?? self.batching.window)
        let limit = (self.wait?.start ?? now).advanced(by: window)
        guard now < limit,
            let expected = self.forecast.expected(for: lead.call.layer, now: now, within: now.duration(to: limit))
        else {
            return nil
        }
        let end = min(limit, expected)
        guard !self.queue.contains(where: { $0.call.isExpired(end) }) else {
            return nil
        }
        if self.wait == nil {
            guard self.patience.mayWait() else {
                return nil
            }
            self.wait = (now, self.queue.count)
        }
        return end
    }

    private mutating func takePass(lead: Entry, now: ContinuousClock.Instant) -> Pass {
        var pass = Pass(calls: [lead.id], rows: lead.call.rows)
        var experts = lead.call.experts
        var taken = [lead]
        let companions = self.queue.filter { $0.call.layer == lead.call.layer && $0.id != lead.id }
            .sorted { $0.turn < $1.turn }
        for entry in companions where pass.rows + entry.call.rows <= self.batching.rows {
            pass.calls.append(entry.id)
            pass.rows += entry.call.rows
            experts += entry.call.experts
            taken.append(entry)
        }
        for entry in taken {
            self.left(entry)
        }
        if let wait = self.wait {
            self.patience.waited(broughtCompanions: taken.count > wait.calls)
            self.wait = nil
        }
        if taken.count == 1 {
            self.queue.removeAll { $0.id == lead.id }
        } else {
            let ids = Set(pass.calls)
            self.queue.removeAll { ids.contains($0.id) }
        }
        self.turns.began(lead.turn)
        self.computing = Computing(
            pass: pass,
            sources: taken.map(\.call.source),
            namedExperts: experts,
            start: now
        )
        return pass
    }

    /// Removes a call that no longer waits from the counts.
    private mutating func left(_ entry: Entry) {
        self.waitingRows -= entry.call.rows
        self.turns.left(entry.call.source, rows: entry.call.rows)
    }
}

extension HostAdmission.Call {
    /// Whether the caller no longer waits for the answer.
    fileprivate func isExpired(_ now: ContinuousClock.Instant) -> Bool {
        self.deadline.map { $0 <= now } ?? false
    }
}
