// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling

/// An engine's requests, from submission to end, and their batch slots: a pure machine.
///
/// A request enters with ``submit(_:sink:now:)`` and ends once: only one caller gets it from ``claim(_:)``, and gives
/// its batch slots back with ``release(_:hasJoined:isFinished:now:)``.
struct RequestBook: Sendable {
    /// Whether requests are accepted.
    enum Phase: Sendable {
        /// Accepts requests. Can transition to `draining` and `stopped`.
        case open
        /// Accepts no requests and finishes its current ones. Can transition to `stopped`.
        case draining
        /// Accepts no requests and has none. Final.
        case stopped
    }

    /// The next turn of the engine's thread.
    struct Turn: Sendable {
        /// Requests that join, in the order of their admission.
        var joined: [Arrival] = []
        /// All running requests, including those that join.
        var running: [SequenceID] = []
        /// Requests to end because their deadline has passed.
        var expired: [SequenceID] = []
        /// Requests to end because they lost their place or waited too long.
        var rejected: [LateRejection] = []
        /// Requests that joined earlier and have ended since.
        var ended: [SequenceID] = []
    }

    private struct Entry {
        let arrival: Arrival
        var hasJoined = false
    }

    private(set) var phase = Phase.open
    private(set) var scheduler: BatchScheduler
    private var nextID: UInt64 = 1
    /// Requests that have not ended.
    private var entries: [SequenceID: Entry] = [:]
    /// Requests that have joined and ended since the last turn.
    private var ended: [SequenceID] = []

    /// - Parameter scheduler: Bounds the requests; must be empty.
    init(scheduler: BatchScheduler) {
        self.scheduler = scheduler
    }

    /// Requests that have not ended.
    var openCount: Int { self.entries.count }

    /// Accepts a request, or refuses it.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - sink: Receives its events.
    ///   - now: The current time.
    /// - Returns: The request's name, unused if it was refused, and whether it waits.
    mutating func submit(
        _ request: EngineRequest,
        sink: AsyncStream<EngineEvent>.Continuation,
        now: ContinuousClock.Instant
    ) -> (id: SequenceID, admission: Admission) {
        let id = SequenceID(self.nextID)
        guard self.phase != .stopped else {
            return (id, .rejected(.draining, retryAfter: nil))
        }
        self.nextID += 1
        let admission = self.scheduler.enqueue(id, request.needs, now: now)
        if case .queued = admission {
            self.entries[id] = Entry(arrival: Arrival(id: id, request: request, sink: sink, time: now))
        }
        return (id, admission)
    }

    /// Accepts several requests, which then wait next to each other, or refuses all of them.
    ///
    /// - Parameters:
    ///   - requests: The requests, each with what receives its events.
    ///   - now: The current time.
    /// - Returns: The requests' names, or why they were refused.
    mutating func submit(
        _ requests: [(request: EngineRequest, sink: AsyncStream<EngineEvent>.Continuation)],
        now: ContinuousClock.Instant
    ) -> (ids: [SequenceID], refusal: Admission?) {
        // All of them are one call's.
        if let refusal = self.rejection(of: requests.count, from: requests.first?.request.caller ?? "", now: now) {
            return ([], refusal)
        }
        var ids: [SequenceID] = []
        for (request, sink) in requests {
            let (id, admission) = self.submit(request, sink: sink, now: now)
            guard case .queued = admission else {
                // None has joined yet.
                for id in ids {
                    self.entries[id] = nil
                    self.scheduler.evicted(id)
                }
                return ([], admission)
            }
            ids.append(id)
        }
        return (ids, nil)
    }

    /// The refusal that this number of a caller's requests would get now; nil if there may be room.
    func rejection(of count: Int = 1, from caller: String = "", now: ContinuousClock.Instant) -> Admission? {
        self.phase == .stopped
            ? .rejected(.draining, retryAfter: nil) : self.scheduler.rejection(of: count, from: caller, now: now)
    }

    /// Plans the next step.
    ///
    /// - Parameter now: The current time.
    /// - Returns: The turn; nil if there is nothing to do.
    mutating func nextTurn(now: ContinuousClock.Instant) -> Turn? {
        let plan = self.scheduler.nextStep(now: now)
        guard !plan.isEmpty || !self.ended.isEmpty else {
            return nil
        }
        var turn = Turn(running: plan.decodes, expired: plan.expired, rejected: plan.rejected, ended: self.ended)
        self.ended = []
        for id in plan.encodes {
            // A request that is claimed but not released yet is still in the plan.
            guard let arrival = self.entries[id]?.arrival else { continue }
            self.entries[id]?.hasJoined = true
            turn.joined.append(arrival)
        }
        return turn
    }

    /// Gives a request to the caller, who ends it.
    ///
    /// - Parameter id: The request.
    /// - Returns: The request and whether it has joined a turn; nil if it has ended or is being ended.
    mutating func claim(_ id: SequenceID) -> (arrival: Arrival, hasJoined: Bool)? {
        self.entries.removeValue(forKey: id).map { ($0.arrival, $0.hasJoined) }
    }

    /// Frees the batch slots of a claimed request.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - hasJoined: Whether the next turn must report its end.
    ///   - isFinished: Whether its time predicts how long others will take.
    ///   - work: Tokens times rows that it took through the model; nil if that is not known.
    ///   - now: The current time.
    mutating func release(
        _ id: SequenceID,
        hasJoined: Bool,
        isFinished: Bool,
        work: Int? = nil,
        now: ContinuousClock.Instant
    ) {
        // The scheduler retires only what runs: a request that never joined may still wait.
        if isFinished, hasJoined {
            self.scheduler.retired(id, work: work, now: now)
        } else {
            self.scheduler.evicted(id)
        }
        if hasJoined {
            self.ended.append(id)
        }
    }

    /// Accepts no more requests.
    mutating func beginDraining() {
        guard self.phase == .open else { return }
        self.phase = .draining
        self.scheduler.beginDraining()
    }

    /// Accepts no more requests, ever.
    ///
    /// - Returns: The requests to end: those that have not ended yet.
    mutating func stop() -> [SequenceID] {
        self.phase = .stopped
        return self.entries.keys.sorted()
    }

    /// Whether the engine's thread has nothing left to do.
    var isDone: Bool {
        self.phase == .stopped || (self.phase == .draining && self.scheduler.isIdle && self.ended.isEmpty)
    }
}
