// SPDX-License-Identifier: Apache-2.0

/// Which `Forward` calls an expert host takes, and in which order it computes them: a pure machine.
///
/// Calls are computed one at a time in the order of their arrival, since one computation already uses all threads. The
/// queue is bounded in calls and in token rows: a call that does not fit is refused at once, so that the gateway can
/// try another replica while the layer's deadline still allows it.
struct HostAdmission: Sendable {
    /// What may wait.
    struct Limits: Sendable, Equatable {
        /// Calls that may wait, not counting the one that is computed; at least 1.
        var calls: Int
        /// Token rows of the calls that wait; at least as many as one call may have.
        var rows: Int
    }

    /// One call, as long as the host has not answered it.
    struct CallID: Hashable, Sendable {
        let rawValue: UInt64
    }

    /// What to do with a call that arrived.
    enum OnArrival: Sendable, Equatable {
        /// Keep the call's work until ``HostAdmission/next(now:)`` names it; wake the compute thread.
        case queue(CallID)
        /// Answer `RESOURCE_EXHAUSTED`: as many calls wait as may.
        case refuseCalls(limit: Int)
        /// Answer `RESOURCE_EXHAUSTED`: with this call, more rows would wait than may.
        case refuseRows(waiting: Int, limit: Int)
        /// Answer `UNAVAILABLE`: the host drains.
        case refuseDraining
        /// Answer `DEADLINE_EXCEEDED`: nobody waits for the answer any more.
        case refuseExpired
    }

    /// What the compute thread does next.
    struct Next: Sendable, Equatable {
        enum Step: Sendable, Equatable {
            /// Compute this call, then report ``HostAdmission/finished(_:)``.
            case compute(CallID)
            /// Wait for the next arrival.
            case wait
            /// Leave: the host has drained.
            case leave
        }

        /// Calls whose deadline passed while they waited: answer `DEADLINE_EXCEEDED`, compute nothing.
        var expired: [CallID] = []
        var step: Step
    }

    private enum Phase {
        /// Takes calls. Can transition to `draining`.
        case open
        /// Takes no calls, finishes those it has. Final: the compute thread leaves when nothing is left.
        case draining
    }

    private struct Entry {
        let id: CallID
        let rows: Int
        let deadline: ContinuousClock.Instant?
    }

    /// What may wait.
    let limits: Limits

    private var phase = Phase.open
    private var queue: [Entry] = []
    private var computing: CallID?
    private var nextID: UInt64 = 0

    /// Creates the machine of a host that takes calls.
    ///
    /// - Parameter limits: What may wait.
    init(limits: Limits) {
        precondition(limits.calls >= 1 && limits.rows >= 1, "a queue with the limits \(limits) cannot take any call")
        self.limits = limits
    }

    /// Calls that wait.
    var waitingCalls: Int { self.queue.count }

    /// Token rows of the calls that wait.
    private(set) var waitingRows = 0

    /// Whether a call is being computed.
    var isBusy: Bool { self.computing != nil }

    /// Whether new calls are refused because the host is leaving.
    var isDraining: Bool { self.phase == .draining }

    /// A valid call arrived.
    ///
    /// - Parameters:
    ///   - rows: The call's token rows.
    ///   - deadline: When the caller stops waiting.
    ///   - now: The present.
    /// - Returns: What to do with the call.
    mutating func arrived(
        rows: Int,
        deadline: ContinuousClock.Instant?,
        now: ContinuousClock.Instant
    ) -> OnArrival {
        guard self.phase == .open else {
            return .refuseDraining
        }
        if let deadline, deadline <= now {
            return .refuseExpired
        }
        guard self.queue.count < self.limits.calls else {
            return .refuseCalls(limit: self.limits.calls)
        }
        guard self.waitingRows + rows <= self.limits.rows else {
            return .refuseRows(waiting: self.waitingRows, limit: self.limits.rows)
        }
        let id = CallID(rawValue: self.nextID)
        self.nextID += 1
        self.queue.append(Entry(id: id, rows: rows, deadline: deadline))
        self.waitingRows += rows
        return .queue(id)
    }

    /// The caller left.
    ///
    /// - Returns: Whether the call still waited: its work can be thrown away. A call that is being computed, or that
    ///   is answered already, goes on as if nothing had happened.
    mutating func cancelled(_ id: CallID) -> Bool {
        guard let index = self.queue.firstIndex(where: { $0.id == id }) else {
            return false
        }
        self.waitingRows -= self.queue.remove(at: index).rows
        return true
    }

    /// The compute thread is free.
    ///
    /// - Parameter now: The present.
    /// - Returns: What to compute, and which calls expired.
    mutating func next(now: ContinuousClock.Instant) -> Next {
        precondition(self.computing == nil, "the call that is being computed has not been reported as finished")
        var expired: [CallID] = []
        while !self.queue.isEmpty {
            let entry = self.queue.removeFirst()
            self.waitingRows -= entry.rows
            if let deadline = entry.deadline, deadline <= now {
                expired.append(entry.id)
                continue
            }
            self.computing = entry.id
            return Next(expired: expired, step: .compute(entry.id))
        }
        return Next(expired: expired, step: self.phase == .draining ? .leave : .wait)
    }

    /// The call that was being computed is done, whatever came of it.
    mutating func finished(_ id: CallID) {
        precondition(self.computing == id, "call \(id.rawValue) is not being computed")
        self.computing = nil
    }

    /// Refuse new calls from now on and leave when the present ones are done.
    mutating func beginDraining() {
        self.phase = .draining
    }
}
