// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling

/// The requests that an engine has, from submission to end, and their batch slots: a pure machine.
///
/// A request enters with ``submit(_:sink:now:)`` and ends once: of all that try, one gets it from ``claim(_:)`` and gives
/// its batch slots back with ``release(_:hasJoined:isFinished:now:)``.
struct RequestBook: Sendable {
    /// Whether requests are taken.
    enum Phase: Sendable {
        /// Takes requests. Can transition to `draining` and `stopped`.
        case open
        /// Takes no requests and finishes those it has. Can transition to `stopped`.
        case draining
        /// Takes no requests and has none. Final.
        case stopped
    }

    /// What the engine's thread does next.
    struct Turn: Sendable {
        /// Requests that join, in the order of their admission.
        var joined: [Arrival] = []
        /// All requests that run, those that join included.
        var running: [SequenceID] = []
        /// Requests whose deadline has passed, and which are to be ended.
        var expired: [SequenceID] = []
        /// Requests that have joined before and have ended since.
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

    /// - Parameter scheduler: Bounds the requests; has none yet.
    init(scheduler: BatchScheduler) {
        self.scheduler = scheduler
    }

    /// Requests that have not ended.
    var openCount: Int { self.entries.count }

    /// Takes a request, or turns it away.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - sink: Takes its events.
    ///   - now: The present.
    /// - Returns: The request's name, which nobody needs of one that was turned away, and whether it waits.
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
        let admission = self.scheduler.enqueue(
            id,
            slots: request.slotCount,
            inputTokens: request.input.count,
            deadline: request.deadline,
            now: now
        )
        if case .queued = admission {
            self.entries[id] = Entry(arrival: Arrival(id: id, request: request, sink: sink, time: now))
        }
        return (id, admission)
    }

    /// What a request would be told now that is turned away whatever it asks for; nil if there may be a place.
    func rejection(now: ContinuousClock.Instant) -> Admission? {
        self.phase == .stopped ? .rejected(.draining, retryAfter: nil) : self.scheduler.rejection(now: now)
    }

    /// Plans the next step.
    ///
    /// - Parameter now: The present.
    /// - Returns: What to do; nil where there is nothing.
    mutating func nextTurn(now: ContinuousClock.Instant) -> Turn? {
        let plan = self.scheduler.nextStep(now: now)
        guard !plan.isEmpty || !self.ended.isEmpty else {
            return nil
        }
        var turn = Turn(running: plan.decodes, expired: plan.expired, ended: self.ended)
        self.ended = []
        for id in plan.encodes {
            // One that has been claimed and not released yet is still in the plan.
            guard let arrival = self.entries[id]?.arrival else { continue }
            self.entries[id]?.hasJoined = true
            turn.joined.append(arrival)
        }
        return turn
    }

    /// Gives a request to the caller, who ends it.
    ///
    /// - Parameter id: The request.
    /// - Returns: The request and whether it has joined a turn; nil where it has ended or is being ended.
    mutating func claim(_ id: SequenceID) -> (arrival: Arrival, hasJoined: Bool)? {
        self.entries.removeValue(forKey: id).map { ($0.arrival, $0.hasJoined) }
    }

    /// Frees the batch slots of a claimed request.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - hasJoined: Whether the next turn has to say that it ended.
    ///   - isFinished: Whether the time that it took says how long others will take.
    ///   - now: The present.
    mutating func release(_ id: SequenceID, hasJoined: Bool, isFinished: Bool, now: ContinuousClock.Instant) {
        // The scheduler retires only what runs: a request that never joined may still wait.
        if isFinished, hasJoined {
            self.scheduler.retired(id, now: now)
        } else {
            self.scheduler.evicted(id)
        }
        if hasJoined {
            self.ended.append(id)
        }
    }

    /// Takes no more requests.
    mutating func beginDraining() {
        guard self.phase == .open else { return }
        self.phase = .draining
        self.scheduler.beginDraining()
    }

    /// Takes no more requests, now and for good.
    ///
    /// - Returns: The requests that have not ended, and which are to be ended.
    mutating func stop() -> [SequenceID] {
        self.phase = .stopped
        return self.entries.keys.sorted()
    }

    /// Whether nothing is left to do for the engine's thread.
    var isDone: Bool {
        self.phase == .stopped || (self.phase == .draining && self.scheduler.isIdle && self.ended.isEmpty)
    }
}
