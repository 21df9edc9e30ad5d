// SPDX-License-Identifier: Apache-2.0

/// Who drives a ``DrivenEventLoop``: a pure machine in one atomic byte.
///
/// - holder `vacant`: the keeper sleeps until something is ready, or is about to; can go to `keeper`, `caller`.
/// - holder `kept`: a caller drove a short time ago and is expected back, so the system tells the keeper of nothing; it looks
///   after a time by itself, as a patrol does; can go to `keeper`, `caller`.
/// - holder `keeper`: the keeper's thread drives, for one turn; can go to `awaited`, `kept`, `vacant`.
/// - holder `awaited`: so it does, and a caller sleeps until the turn ends; can go to `caller`.
/// - holder `caller`: a thread drives that calls or waits; the keeper is told of nothing; can go to `kept`, `vacant`.
///
/// A thread that leaves the seat vacant asks the system, after that, to wake the keeper once something is ready. So nothing that is
/// ready waits for a driver longer than a patrol's interval, and there are never two drivers. Callers that come again and again, as
/// for the layers of a decoder's steps, need no system call to come and go.
struct DriveSeat: RawRepresentable, Sendable, Hashable {
    enum Holder: UInt8, Sendable, CaseIterable {
        case vacant
        case kept
        case keeper
        case awaited
        case caller
    }

    /// What a caller does that wants to drive.
    enum Arrival: Sendable, Hashable {
        /// It drives. The keeper is no longer to be woken.
        case disarms
        /// It drives.
        case drives
        /// It sleeps until the keeper hands it the seat.
        case waits
        /// Another caller drives, or is next.
        case refused
    }

    /// What a caller does that has left.
    enum Leaving: Sendable, Hashable {
        /// It asks that the keeper be woken when something is ready.
        case arms
        /// It wakes the keeper, which begins its patrol.
        case callsKeeper
        /// Nothing, unless the bell rings.
        case keeps
    }

    /// What the keeper does that was woken.
    enum Waking: Sendable, Hashable {
        /// It drives, for a turn.
        case drives
        /// A caller drives: it sleeps.
        case sleeps
    }

    /// What the keeper does at the end of its turn; then it sleeps, on patrol no longer than the patrol's interval.
    enum Departure: Sendable, Hashable {
        /// It asks to be woken when something is ready.
        case arms
        /// Nothing, unless the bell rings.
        case keeps
        /// The caller that waits drives now: the keeper wakes it.
        case handsOver
    }

    private(set) var holder = Holder.vacant
    /// Whether the keeper wakes after an interval by itself.
    private(set) var isPatrolled = false
    /// Whether a caller has left since the keeper last looked.
    private var isVisited = false
    /// Whether a caller was refused since the keeper last looked: it waits for what others read, and the next one to leave may
    /// not be back soon.
    private var isShared = false

    /// No thread has driven yet, and the keeper is asleep until something is ready.
    init() {}

    init?(rawValue: UInt8) {
        guard let holder = Holder(rawValue: rawValue & 7), rawValue < 64 else { return nil }
        self.holder = holder
        self.isPatrolled = rawValue & 8 != 0
        self.isVisited = rawValue & 16 != 0
        self.isShared = rawValue & 32 != 0
    }

    var rawValue: UInt8 {
        self.holder.rawValue | (self.isPatrolled ? 8 : 0) | (self.isVisited ? 16 : 0) | (self.isShared ? 32 : 0)
    }

    /// A caller wants to drive.
    mutating func callerArrived() -> Arrival {
        switch self.holder {
        case .vacant:
            self.holder = .caller
            return .disarms
        case .kept:
            self.holder = .caller
            return .drives
        case .keeper:
            self.holder = .awaited
            return .waits
        case .awaited, .caller:
            self.isShared = true
            return .refused
        }
    }

    /// The driving caller leaves.
    mutating func callerLeft() -> Leaving {
        guard self.holder == .caller else { return .keeps }
        self.isVisited = true
        guard !self.isShared else {
            self.holder = .vacant
            return .arms
        }
        self.holder = .kept
        defer { self.isPatrolled = true }
        return self.isPatrolled ? .keeps : .callsKeeper
    }

    /// The keeper was woken, or its interval is over.
    mutating func keeperWoke() -> Waking {
        switch self.holder {
        case .vacant, .kept:
            self.holder = .keeper
            return .drives
        case .keeper, .awaited, .caller:
            return .sleeps
        }
    }

    /// The keeper's turn is over.
    ///
    /// - Parameter wasBusy: Whether anything was ready, and so not only what the caller that is expected back will see to.
    /// - Returns: What it does then.
    mutating func keeperEnded(wasBusy: Bool) -> Departure {
        let (wasVisited, wasShared) = (self.isVisited, self.isShared)
        (self.isVisited, self.isShared) = (false, false)
        guard self.holder != .awaited else {
            self.holder = .caller
            return .handsOver
        }
        self.isPatrolled = self.isPatrolled && wasVisited
        guard self.isPatrolled, !wasShared, !wasBusy else {
            self.holder = .vacant
            return .arms
        }
        self.holder = .kept
        return .keeps
    }

    /// Checks what must hold between any two calls.
    ///
    /// - Returns: What does not hold; nil if all does.
    func checkInvariants() -> String? {
        if self.holder == .kept && !self.isPatrolled { return "the seat is kept, but the keeper does not look" }
        if Self(rawValue: self.rawValue) != self { return "\(self) does not fit its byte" }
        return nil
    }
}
