// SPDX-License-Identifier: Apache-2.0

/// A change of the checkpoint that a gateway serves, as a machine: requests and steps go in, what to load, record and unload
/// comes out.
///
/// A gateway serves one checkpoint. Beside it there may be one other: loading, getting its share of the new requests, or
/// leaving. A request is given a checkpoint once and stays on it until it ends, so none is unloaded while a request runs on
/// it, and no answer is of two.
///
/// ```
/// steady -> loading -> canary -> leaving -> steady
///              |          |          ^
///              v          v          |  promote and back change places while the other one leaves
///            steady    leaving ------+
/// ```
struct Rollout: Sendable, Equatable {
    /// A checkpoint in this process; numbers are never used twice.
    typealias ModelID = Int

    /// One checkpoint.
    struct Model: Sendable, Equatable {
        let id: ModelID
        /// The folder among the gateway's checkpoints; nil for the one that the settings name.
        let checkpoint: String?
        /// Requests that run or wait on it.
        var running = 0
        /// Requests that it has been given.
        var taken: UInt64 = 0
    }

    /// How far a change is.
    enum Phase: Sendable, Equatable {
        /// There is no other one. Can transition to `loading`.
        case steady
        /// The other one is being loaded until then; it gets no requests. Can transition to `canary` and `steady`.
        case loading(until: ContinuousClock.Instant)
        /// The other one gets its share. Can transition to `leaving`.
        case canary
        /// The other one gets no requests and is unloaded on ``Event/finish``. Can transition to `steady`.
        case leaving
    }

    /// What happens.
    enum Event: Sendable, Equatable {
        /// Load a checkpoint, which gets a share of the requests once it is there.
        case begin(checkpoint: String, share: Float)
        /// The other one is loaded, here and on the hosts.
        case loaded(ModelID)
        /// The other one cannot be loaded.
        case failed(ModelID, String)
        case share(Float)
        case promote
        case back
        /// What ``Action/record(_:)`` asked for is on disk, or cannot be.
        case recorded(failure: String?)
        case finish
        case timer
    }

    /// What to do.
    enum Action: Sendable, Equatable {
        case load(Model, isFor: String)
        /// Record what is served after a restart; nil for what the settings name. ``Event/recorded(failure:)`` follows.
        case record(String?)
        /// End the engine and the connections of a checkpoint on which nothing runs.
        case unload(ModelID)
    }

    /// Why a step is not possible.
    struct Refusal: Error, Sendable, Equatable {
        let message: String
    }

    /// How long loading may take, hosts included.
    static let loadLimit = Duration.seconds(600)
    /// A share is counted in these.
    static let shareUnits: UInt64 = 1_000_000

    private(set) var serving: Model
    private(set) var other: Model?
    private(set) var phase = Phase.steady
    /// The other one's part of the new requests, in millionths; none but in `canary`.
    private(set) var share: UInt64 = 0
    /// Why the last change ended early; for people.
    private(set) var detail = ""
    /// The share once the other one is loaded.
    private var firstShare: UInt64 = 0
    /// Whether serving and other change places once that is recorded.
    private var isRecording = false
    private var nextID: ModelID

    /// Starts with a checkpoint.
    ///
    /// - Parameter checkpoint: Its name; nil for the one that the settings name.
    init(checkpoint: String?) {
        self.serving = Model(id: 0, checkpoint: checkpoint)
        self.nextID = 1
    }

    /// When ``Event/timer`` is due.
    var nextTimer: ContinuousClock.Instant? {
        if case .loading(let until) = self.phase { return until }
        return nil
    }

    // MARK: - Requests

    /// Whether a request's point decides between two checkpoints.
    var isDivided: Bool { self.share > 0 && self.share < Self.shareUnits }

    /// Gives a new request its checkpoint.
    ///
    /// - Parameter point: A number that follows from the request alone, evenly spread: the same request always gets the
    ///   same checkpoint, and keeps the new one when the share grows.
    /// - Returns: The checkpoint; ``ended(on:)`` follows.
    mutating func begin(point: UInt64) -> ModelID {
        if self.phase == .canary, point % Self.shareUnits < self.share, var other = self.other {
            other.running += 1
            other.taken += 1
            self.other = other
            return other.id
        }
        self.serving.running += 1
        self.serving.taken += 1
        return self.serving.id
    }

    /// Gives a new request the checkpoint that it names.
    ///
    /// - Parameter id: The checkpoint.
    /// - Returns: Whether it takes requests: it is served, or has a share; then ``ended(on:)`` follows.
    mutating func begin(on id: ModelID) -> Bool {
        if self.serving.id == id {
            self.serving.running += 1
            self.serving.taken += 1
            return true
        }
        guard self.phase == .canary, var other = self.other, other.id == id else { return false }
        other.running += 1
        other.taken += 1
        self.other = other
        return true
    }

    /// Whether the other checkpoint takes requests.
    var otherTakesRequests: Bool { self.phase == .canary }

    /// A request has ended.
    mutating func ended(on id: ModelID) {
        if self.serving.id == id { self.serving.running -= 1 }
        if self.other?.id == id { self.other?.running -= 1 }
    }

    // MARK: - Steps

    /// Handles an event.
    ///
    /// - Parameters:
    ///   - event: What happens.
    ///   - now: The time.
    /// - Returns: What to do.
    /// - Throws: ``Refusal`` where a step is not possible now; nothing has changed then.
    mutating func handle(_ event: Event, now: ContinuousClock.Instant) throws(Refusal) -> [Action] {
        switch event {
        case .begin(let checkpoint, let share): return try self.begin(checkpoint, share, now: now)
        case .loaded(let id):
            guard case .loading = self.phase, self.other?.id == id else { return [] }
            self.phase = .canary
            self.share = self.firstShare
            self.detail = ""
            return []
        case .failed(let id, let reason):
            guard case .loading = self.phase, self.other?.id == id else { return [] }
            return self.giveUp(reason)
        case .share(let share):
            let units = try Self.units(share)
            guard self.phase == .canary, !self.isRecording else { throw self.refusal("give a share to") }
            self.share = units
            return []
        case .promote:
            guard self.phase == .canary, !self.isRecording, let other = self.other else {
                throw self.refusal("promote")
            }
            self.isRecording = true
            return [.record(other.checkpoint)]
        case .back: return try self.back()
        case .recorded(let failure):
            guard self.isRecording else { return [] }
            self.isRecording = false
            if let failure { self.detail = failure } else { self.changePlaces() }
            return []
        case .finish: return try self.finish()
        case .timer:
            guard case .loading(let until) = self.phase, until <= now else { return [] }
            return self.giveUp("it was not loaded within \(Self.loadLimit.components.seconds) seconds; \(self.detail)")
        }
    }

    /// Says what loading waits for.
    mutating func note(_ detail: String) {
        if case .loading = self.phase { self.detail = detail }
    }

    private mutating func begin(
        _ checkpoint: String,
        _ share: Float,
        now: ContinuousClock.Instant
    ) throws(Refusal) -> [Action] {
        let units = try Self.units(share)
        guard self.phase == .steady else { throw self.refusal("begin with") }
        guard self.serving.checkpoint != checkpoint else {
            throw Refusal(message: "\(checkpoint) is what this gateway serves already")
        }
        let model = Model(id: self.nextID, checkpoint: checkpoint)
        self.nextID += 1
        self.other = model
        self.firstShare = units
        self.detail = ""
        self.phase = .loading(until: now.advanced(by: Self.loadLimit))
        return [.load(model, isFor: checkpoint)]
    }

    private mutating func back() throws(Refusal) -> [Action] {
        guard !self.isRecording else { throw self.refusal("go back from") }
        switch self.phase {
        case .steady: throw self.refusal("go back from")
        case .loading: return self.giveUp("went back while it was being loaded")
        case .canary:
            self.share = 0
            self.phase = .leaving
            return []
        case .leaving:
            guard let other = self.other else { return [] }
            // After a promotion the old one gets the requests again; after going back there is nothing to do.
            guard other.id < self.serving.id else { return [] }
            self.isRecording = true
            return [.record(other.checkpoint)]
        }
    }

    private mutating func finish() throws(Refusal) -> [Action] {
        guard self.phase == .leaving, !self.isRecording, let other = self.other else { throw self.refusal("finish") }
        guard other.running == 0 else {
            throw Refusal(
                message:
                    "\(other.running) requests still run on the checkpoint that leaves; try again when they have ended"
            )
        }
        self.other = nil
        self.phase = .steady
        return [.unload(other.id)]
    }

    private mutating func changePlaces() {
        guard let other = self.other else { return }
        self.other = self.serving
        self.serving = other
        self.share = 0
        self.phase = .leaving
        self.detail = ""
    }

    private mutating func giveUp(_ reason: String) -> [Action] {
        guard let other = self.other else { return [] }
        self.other = nil
        self.phase = .steady
        self.detail = "\(other.checkpoint ?? "the other checkpoint") is not served: \(reason)"
        return [.unload(other.id)]
    }

    private static func units(_ share: Float) throws(Refusal) -> UInt64 {
        guard share >= 0, share <= 1 else {
            throw Refusal(message: "share is \(share); it must be from 0 to 1")
        }
        return UInt64((Double(share) * Double(Self.shareUnits)).rounded())
    }

    private func refusal(_ step: String) -> Refusal {
        let name = self.other?.checkpoint ?? "the checkpoint of the settings"
        let state =
            switch self.phase {
            case .steady: "no other checkpoint is loaded; begin with switchyard rollout NAME"
            case .loading: "\(name) is still being loaded; wait, or give it up with --back"
            case .canary: "\(name) is loaded beside it; go on with --promote or --back"
            case .leaving: "\(name) is leaving; complete that with --promote or --back"
            }
        return Refusal(message: "there is nothing to \(step) now: \(state)")
    }

    // MARK: - Invariants

    /// The first invariant that does not hold, in words; nil if all hold.
    ///
    /// - There is another checkpoint exactly while the phase is not steady, and it is not the served one.
    /// - Only a canary gets a share, of at most all requests.
    /// - No count of requests is negative, and none runs on what is being loaded.
    /// - Places change only between two loaded checkpoints.
    func checkInvariants() -> String? {
        if (self.other == nil) != (self.phase == .steady) {
            return "\(self.phase) with \(String(describing: self.other))"
        }
        if self.other?.id == self.serving.id { return "checkpoint \(self.serving.id) stands beside itself" }
        if self.share > Self.shareUnits || self.share > 0 && self.phase != .canary {
            return "\(self.phase) has a share of \(self.share)"
        }
        if self.serving.running < 0 || (self.other?.running ?? 0) < 0 { return "fewer than no requests run" }
        if case .loading = self.phase, self.other?.running != 0 { return "requests run on what is being loaded" }
        if self.isRecording, self.phase != .canary, self.phase != .leaving {
            return "\(self.phase) is recorded as a change"
        }
        return nil
    }
}
