// SPDX-License-Identifier: Apache-2.0

/// Who drives a ``DrivenEventLoop``: a pure machine in one atomic byte.
///
/// - state `vacant`: the keeper sleeps until something is ready, or is about to; can go to `keeper`, `caller`.
/// - state `keeper`: the keeper's thread drives, for one turn; can go to `awaited`, `vacant`.
/// - state `awaited`: so it does, and a caller sleeps until the turn ends; can go to `caller`.
/// - state `caller`: a thread drives that calls or waits; the keeper is told of nothing; can go to `vacant`.
///
/// A thread that leaves the seat vacant asks the system, after that, to wake the keeper once something is ready. So nothing that is
/// ready waits for a driver, and there are never two.
enum DriveSeat: UInt8, Sendable, CaseIterable {
    case vacant
    case keeper
    case awaited
    case caller

    /// What a caller does that wants to drive.
    enum Arrival: Sendable, Hashable {
        /// It drives. The keeper is no longer to be woken.
        case drives
        /// It sleeps until the keeper hands it the seat.
        case waits
        /// Another caller drives, or is next.
        case refused
    }

    /// What the keeper does at the end of its turn.
    enum Departure: Sendable, Hashable {
        /// It asks to be woken, and sleeps.
        case sleeps
        /// The caller that waits drives now: the keeper wakes it, and sleeps.
        case handsOver
    }

    /// A caller wants to drive.
    mutating func callerArrived() -> Arrival {
        switch self {
        case .vacant:
            self = .caller
            return .drives
        case .keeper:
            self = .awaited
            return .waits
        case .awaited, .caller:
            return .refused
        }
    }

    /// The driving caller leaves; then it asks that the keeper be woken when something is ready.
    mutating func callerLeft() {
        if self == .caller { self = .vacant }
    }

    /// The keeper was woken.
    ///
    /// - Returns: Whether it drives; if not, a caller does, which has the keeper woken after it has left.
    mutating func keeperWoke() -> Bool {
        guard self == .vacant else { return false }
        self = .keeper
        return true
    }

    /// The keeper's turn is over.
    mutating func keeperEnded() -> Departure {
        guard self == .awaited else {
            if self == .keeper { self = .vacant }
            return .sleeps
        }
        self = .caller
        return .handsOver
    }
}
