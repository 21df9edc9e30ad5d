// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Which `Forward` calls an expert host accepts, in which order it computes them, and which ones together: a pure
/// machine.
///
/// One pass over the experts' weights is computed at a time, since it already uses all threads. The next pass starts
/// with the call whose turn it is among the gateways (``FairTurns``) and takes along calls that wait for the same
/// sparse layer, so that weights are read once for all of them. The queue is bounded in calls and in token rows: a
/// call that does not fit is refused at once, so that the gateway can try another replica while the layer's deadline
/// still allows it.
///
/// A trainer's calls are large, and nobody sees how long one takes. So their passes pause again and again, and served
/// calls that came meanwhile are computed in the pause (``nextBeside(_:now:)``).
package struct HostAdmission: Sendable {
    private enum Phase {
        /// Accepts calls. Can transition to `leaving` and `draining`.
        case open
        /// Announces that it is leaving, and accepts calls that still arrive. Can transition to `draining`.
        case leaving
        /// Accepts no calls and finishes current ones. Final: the compute thread ends when nothing is left.
        case draining
    }

    /// A call that waits.
    struct Entry {
        let id: CallID
        let call: Call
        /// The call's place in the order among all sources.
        let turn: FairTurns.Turn
    }

    /// A pass that is being computed.
    struct Computing {
        var pass: Pass
        var calls: [Call]
        let namedExperts: Int
        let start: ContinuousClock.Instant
        /// How much of its time went to passes beside it.
        var besideTime = Duration.zero

        /// Whether trainers wait for it; all of its calls are of one kind.
        var isTraining: Bool { self.calls.contains(where: \.isTraining) }
    }

    /// How long after its last call a source is expected to call again.
    private static let activeTime = Duration.milliseconds(50)

    /// How long after a served call the next one is expected soon.
    private static let servingTime = Duration.seconds(1)

    /// What a call may cost that the thread which received it computes at once: a few experts with a few rows.
    private static let mostAtOnce = 32

    /// How long an average pass may take where calls are computed at once: the receiving thread reads nothing meanwhile.
    private static let longestAtOnce = Duration.milliseconds(3)

    /// Passes that are computed in one pause of training at most: so training goes on however much is served.
    private static let mostBeside = 4

    /// Limits of the queue.
    package let limits: Limits

    /// How calls are batched.
    package let batching: Batching

    /// Work computed since the host started.
    package private(set) var totals = Totals()

    private var phase = Phase.open
    private(set) var queue: [Entry] = []
    private(set) var turns = FairTurns()
    private var pace = ComputePace()
    private(set) var forecast = CallForecast()
    private var patience = CompanionPatience()
    /// The current wait for companions: since when, and how many calls there were then.
    private var wait: (start: ContinuousClock.Instant, calls: Int)?
    private(set) var computing: Computing?
    /// Served calls that are computed in a pause of `computing`, which trains.
    private(set) var beside: Computing?
    /// The lists of the last pass, emptied, for the next one.
    private var emptyIDs: [CallID] = []
    private var emptyCalls: [Call] = []
    private var lastServed: ContinuousClock.Instant?
    private var nextID: UInt64 = 0

    /// Creates the machine of a host that takes calls.
    ///
    /// - Parameters:
    ///   - limits: Limits of the queue.
    ///   - batching: How calls are batched.
    package init(limits: Limits, batching: Batching = Batching()) {
        precondition(limits.calls >= 1 && limits.rows >= 1, "a queue with the limits \(limits) cannot take any call")
        self.limits = limits
        self.batching = batching
    }

    /// Calls that wait.
    package var waitingCalls: Int { self.queue.count }

    /// Token rows of the calls that wait.
    package private(set) var waitingRows = 0

    /// Calls being computed.
    package var computingCalls: Int { (self.computing?.calls.count ?? 0) + (self.beside?.calls.count ?? 0) }

    /// Whether the host is leaving.
    package var isLeaving: Bool { self.phase != .open }

    /// Whether new calls are refused because the host has left its connections.
    package var isDraining: Bool { self.phase == .draining }

    /// Handles the arrival of a valid call.
    ///
    /// - Parameters:
    ///   - call: The call.
    ///   - now: The current time.
    /// - Returns: What to do with the call.
    package mutating func arrived(_ call: Call, now: ContinuousClock.Instant) -> OnArrival {
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
        let turn = self.turns.queued(call.source, cost: call.cost, rows: call.rows)
        self.queue.append(Entry(id: id, call: call, turn: turn))
        self.waitingRows += call.rows
        if !call.isTraining { self.lastServed = now }
        // A trainer's calls are computed with its own alone: when they come says nothing about companions.
        if !call.isTraining { self.forecast.called(call.source, layer: call.layer, now: now) }
        return .queue(id)
    }

    /// Handles a caller's cancellation.
    ///
    /// - Parameters:
    ///   - id: The call.
    ///   - now: The current time.
    /// - Returns: Whether the call still waited: its work can be discarded. A call that is being computed or is
    ///   already answered continues unaffected.
    package mutating func cancelled(_ id: CallID, now: ContinuousClock.Instant) -> Bool {
        guard let index = self.queue.firstIndex(where: { $0.id == id }) else {
            return false
        }
        let entry = self.queue.remove(at: index)
        self.left(entry)
        self.forecastEnded(entry.call, now: now)
        return true
    }

    /// Asks for the next work of the free compute thread.
    ///
    /// - Parameter now: The current time.
    /// - Returns: What to compute, and which calls expired.
    package mutating func next(now: ContinuousClock.Instant) -> Next {
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
        let computing = self.takePass(lead: lead, now: now)
        self.computing = computing
        return Next(expired: expired, step: .compute(computing.pass))
    }

    /// Asks for a pass that the thread which received its call computes itself, in place of the compute thread.
    ///
    /// That saves handing the call and its answer from thread to thread. The receiving thread reads nothing while it computes,
    /// so it is for a small call that nothing else waits beside, and while only one source calls: what comes from others
    /// meanwhile could not be computed together with what waits.
    ///
    /// - Parameter now: The current time.
    /// - Returns: The pass, to be reported with ``finishedAtOnce(expertReads:now:)``; nil leaves the call to the compute thread.
    package mutating func nextAtOnce(now: ContinuousClock.Instant) -> Pass? {
        guard self.computing == nil, self.queue.count == 1, let lead = self.queue.first, !lead.call.isTraining,
            lead.call.cost <= Self.mostAtOnce, !lead.call.isExpired(now),
            self.pace.passTime.map({ $0 <= Self.longestAtOnce }) ?? true,
            self.turns.activeSources(now: now, within: Self.activeTime) == 1,
            self.timeToWaitUntil(lead: lead, now: now) == nil
        else { return nil }
        let computing = self.takePass(lead: lead, now: now)
        self.computing = computing
        return computing.pass
    }

    /// Records that a pass of ``nextAtOnce(now:)`` is done, whatever its result.
    ///
    /// - Parameters:
    ///   - expertReads: Experts whose weights were read.
    ///   - now: The current time.
    /// - Returns: Whether the compute thread has something to do.
    package mutating func finishedAtOnce(expertReads: Int, now: ContinuousClock.Instant) -> Bool {
        self.finished(expertReads: expertReads, now: now)
        if self.queue.isEmpty { self.turns.queueEmptied() }
        return !self.queue.isEmpty || self.phase == .draining
    }

    /// Whether a pass is being computed, by whichever thread.
    package var isComputing: Bool { self.computing != nil }

    /// Asks for served calls to compute in a pause of a pass for a trainer.
    ///
    /// - Parameters:
    ///   - count: Passes that were computed in this pause.
    ///   - now: The current time.
    /// - Returns: What to compute, and which calls expired.
    package mutating func nextBeside(_ count: Int, now: ContinuousClock.Instant) -> Beside {
        precondition(
            self.computing?.isTraining == true && self.beside == nil,
            "served calls are computed beside a pass for a trainer, one pass at a time"
        )
        guard count < Self.mostBeside, self.queue.contains(where: { !$0.call.isTraining }) else { return Beside() }
        let expired = self.takeExpired(now: now)
        guard let lead = self.queue.filter({ !$0.call.isTraining }).min(by: { $0.turn < $1.turn }) else {
            return Beside(expired: expired)
        }
        let beside = self.takePass(lead: lead, now: now)
        self.beside = beside
        return Beside(expired: expired, pass: beside.pass)
    }

    /// Whether served calls came a short time ago, so that the next one is expected soon.
    ///
    /// - Parameter now: The current time.
    /// - Returns: Whether they did.
    package func isServing(now: ContinuousClock.Instant) -> Bool {
        self.lastServed.map { $0.duration(to: now) < Self.servingTime } ?? false
    }

    /// Records that the current pass is done, whatever its result.
    ///
    /// - Parameters:
    ///   - expertReads: Experts whose weights were read.
    ///   - now: The current time.
    package mutating func finished(expertReads: Int, now: ContinuousClock.Instant) {
        guard var computing = self.beside ?? self.computing else {
            preconditionFailure("nothing is being computed")
        }
        for call in computing.calls {
            self.forecastEnded(call, now: now)
        }
        let time = computing.start.duration(to: now) - computing.besideTime
        if self.beside == nil {
            self.computing = nil
        } else {
            self.beside = nil
            self.computing?.besideTime += time
        }
        self.pace.computed(rows: computing.pass.rows, time: time)
        self.totals.passes += 1
        self.totals.calls += UInt64(computing.pass.calls.count)
        self.totals.rows += UInt64(computing.pass.rows)
        self.totals.namedExperts += UInt64(computing.namedExperts)
        self.totals.expertReads += UInt64(expertReads)
        computing.pass.calls.removeAll(keepingCapacity: true)
        computing.calls.removeAll(keepingCapacity: true)
        swap(&self.emptyIDs, &computing.pass.calls)
        swap(&self.emptyCalls, &computing.calls)
    }

    /// Announces from now on that the host is leaving; calls that still arrive are accepted.
    package mutating func beginLeaving() {
        if self.phase == .open {
            self.phase = .leaving
        }
    }

    /// Refuses new calls from now on and ends when the current ones are done.
    package mutating func beginDraining() {
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
            self.forecastEnded(entry.call, now: now)
        }
        self.queue.removeAll { $0.call.isExpired(now) }
        return expired
    }

    /// Until when to wait for companions, or nil to compute now.
    private mutating func timeToWaitUntil(lead: Entry, now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
        guard self.batching.window > .zero, self.phase == .open, self.waitingRows < self.batching.rows,
            // Waiting gains nothing if something else could be computed meanwhile.
            !lead.call.isTraining, self.queue.allSatisfy({ $0.call.fits(lead.call) })
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

    private mutating func takePass(lead: Entry, now: ContinuousClock.Instant) -> Computing {
        var pass = Pass(calls: [], rows: lead.call.rows)
        var calls: [Call] = []
        swap(&pass.calls, &self.emptyIDs)
        swap(&calls, &self.emptyCalls)
        pass.calls.append(lead.id)
        calls.append(lead.call)
        var experts = lead.call.experts
        self.left(lead)
        let companions = self.queue.filter { $0.call.fits(lead.call) && $0.id != lead.id }
            .sorted { $0.turn < $1.turn }
        for entry in companions where pass.rows + entry.call.rows <= self.batching.rows {
            pass.calls.append(entry.id)
            pass.rows += entry.call.rows
            experts += entry.call.experts
            calls.append(entry.call)
            self.left(entry)
        }
        if let wait = self.wait {
            self.patience.waited(broughtCompanions: calls.count > wait.calls)
            self.wait = nil
        }
        if calls.count == 1 {
            self.queue.removeAll { $0.id == lead.id }
        } else {
            let ids = Set(pass.calls)
            self.queue.removeAll { ids.contains($0.id) }
        }
        self.turns.began(lead.turn)
        return Computing(
            pass: pass,
            calls: calls,
            namedExperts: experts,
            start: now
        )
    }

    /// Tells the forecast that a call which it knows has ended.
    private mutating func forecastEnded(_ call: Call, now: ContinuousClock.Instant) {
        if !call.isTraining { self.forecast.ended(call.source, now: now) }
    }

    /// Removes a call that no longer waits from the counts.
    private mutating func left(_ entry: Entry) {
        self.waitingRows -= entry.call.rows
        self.turns.left(entry.call.source, rows: entry.call.rows)
    }
}
