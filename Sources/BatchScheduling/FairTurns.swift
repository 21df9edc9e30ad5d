// SPDX-License-Identifier: Apache-2.0

/// The order in which calls of several sources are computed, so that none waits for everything that another one sent.
///
/// Start-time fair queueing (Goyal, Vin and Cheng, https://doi.org/10.1145/248156.248171): a call gets the later of
/// two virtual times, the start of the call being computed and the end of the same source's previous call, and the
/// earliest goes first. A source's turns keep their order, and a source that sends much waits for itself. What a call
/// costs, the caller says, in any unit.
///
/// Expert hosts use it among gateways, and a gateway's ``BatchScheduler`` among callers.
public struct FairTurns: Sendable {
    /// A call's place in the order; earlier ones are less.
    public struct Turn: Sendable, Hashable, Comparable {
        fileprivate let start: UInt64
        fileprivate let arrival: UInt64

        /// Whether the left turn comes first.
        public static func < (left: Turn, right: Turn) -> Bool {
            (left.start, left.arrival) < (right.start, right.arrival)
        }
    }

    private struct Source {
        /// The virtual time at which its last call ends.
        var finish: UInt64 = 0
        var lastArrival: ContinuousClock.Instant
        var waitingCalls = 0
        var waitingRows = 0
    }

    /// How long a source without calls here is remembered.
    private static let memory = Duration.seconds(1)

    /// Number of sources above which departed ones are removed.
    private static let sourcesToKeep = 16

    private var sources: [String: Source] = [:]
    private var virtualTime: UInt64 = 0
    private var arrivals: UInt64 = 0

    /// Creates turns without sources.
    public init() {}

    /// The remembered sources.
    public var sourceCount: Int { self.sources.count }

    /// Notes that a source called, whether or not there is room for the call.
    ///
    /// - Parameters:
    ///   - name: The source.
    ///   - now: The current time.
    /// - Returns: The source's waiting work, without this call.
    public mutating func arrived(_ name: String, now: ContinuousClock.Instant) -> (calls: Int, rows: Int) {
        if self.sources.count >= Self.sourcesToKeep, self.sources[name] == nil {
            self.sources = self.sources.filter {
                $0.value.waitingCalls > 0 || $0.value.lastArrival.duration(to: now) < Self.memory
            }
        }
        var source = self.sources[name] ?? Source(lastArrival: now)
        source.lastArrival = now
        self.sources[name] = source
        return (source.waitingCalls, source.waitingRows)
    }

    /// Assigns a turn to a call of a source that ``arrived(_:now:)`` noted.
    ///
    /// - Parameters:
    ///   - name: The source.
    ///   - cost: What the call costs, at least 0.
    ///   - rows: What is counted as the source's waiting rows.
    /// - Returns: The turn.
    public mutating func queued(_ name: String, cost: Int, rows: Int = 0) -> Turn {
        var start = self.virtualTime
        self.change(name) { source in
            start = max(start, source.finish)
            source.finish = start + UInt64(max(0, cost))
            source.waitingCalls += 1
            source.waitingRows += rows
        }
        self.arrivals += 1
        return Turn(start: start, arrival: self.arrivals)
    }

    /// Removes a call that no longer waits, for any reason.
    ///
    /// - Parameters:
    ///   - name: The source.
    ///   - rows: The rows it was queued with.
    public mutating func left(_ name: String, rows: Int = 0) {
        self.change(name) { source in
            source.waitingCalls -= 1
            source.waitingRows -= rows
        }
    }

    /// A call cost less than was expected of it: the source's later calls come that much earlier.
    ///
    /// - Parameters:
    ///   - name: The source; one that is forgotten is ignored.
    ///   - cost: What it did not cost.
    ///   - last: The source's last turn that still waits; later calls do not come before it.
    public mutating func credited(_ name: String, cost: Int, after last: Turn? = nil) {
        guard cost > 0 else { return }
        let (credit, earliest) = (UInt64(cost), max(self.virtualTime, last?.start ?? 0))
        self.change(name) { source in
            source.finish = max(source.finish > credit ? source.finish - credit : 0, earliest)
        }
    }

    /// Starts the call with this turn, the earliest of all.
    ///
    /// - Parameter turn: The turn.
    public mutating func began(_ turn: Turn) {
        self.virtualTime = max(self.virtualTime, turn.start)
    }

    /// Forgets the sources' relative lead once nothing waits.
    public mutating func queueEmptied() {
        for source in self.sources.values {
            self.virtualTime = max(self.virtualTime, source.finish)
        }
    }

    /// Sources that called recently or have calls waiting.
    ///
    /// - Parameters:
    ///   - now: The current time.
    ///   - time: How long ago is recent.
    /// - Returns: How many.
    public func activeSources(now: ContinuousClock.Instant, within time: Duration) -> Int {
        self.sources.values.reduce(0) {
            $0 + ($1.waitingCalls > 0 || $1.lastArrival.duration(to: now) < time ? 1 : 0)
        }
    }

    /// Changes what is known of a source; one that is forgotten stays so.
    ///
    /// It is copied out and back: to change it in place through the optional that the dictionary gives takes eight allocations.
    private mutating func change(_ name: String, _ body: (inout Source) -> Void) {
        guard var source = self.sources[name] else { return }
        body(&source)
        self.sources[name] = source
    }

    // MARK: - Rules

    /// Calls and rows of a source that wait, as counted.
    func held(by name: String) -> (calls: Int, rows: Int) {
        (self.sources[name]?.waitingCalls ?? 0, self.sources[name]?.waitingRows ?? 0)
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        for (name, source) in self.sources {
            if source.waitingCalls < 0 || source.waitingRows < 0 {
                return "\(source.waitingCalls) calls with \(source.waitingRows) rows of \(name) wait"
            }
            if source.waitingCalls == 0, source.waitingRows > 0 {
                return "no call of \(name) waits, but \(source.waitingRows) rows do"
            }
        }
        return nil
    }
}
