// SPDX-License-Identifier: Apache-2.0

/// The order in which calls of several sources are computed, so that none waits for all that another one sent.
///
/// Start-time fair queueing (Goyal, Vin and Cheng, https://doi.org/10.1145/248156.248171): a call gets the later of two
/// virtual times, that of the call being computed and the end of the same source's call before it, and the least goes
/// first. Calls of one source keep their order, and a source that sends much waits for itself. What a call counts for
/// is its rows and, since reading an expert's weights costs about as much as computing four rows, four more for each
/// expert.
struct FairTurns: Sendable {
    /// A call's place: earlier ones are less.
    struct Turn: Sendable, Comparable {
        fileprivate let start: UInt64
        fileprivate let arrival: UInt64

        static func < (left: Turn, right: Turn) -> Bool {
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

    /// For how long a source that has nothing here is remembered.
    private static let memory = Duration.seconds(1)

    /// Sources beyond which those that left are looked for.
    private static let sourcesToKeep = 16

    private var sources: [String: Source] = [:]
    private var virtualTime: UInt64 = 0
    private var arrivals: UInt64 = 0

    /// Sources that are remembered.
    var sourceCount: Int { self.sources.count }

    /// Notes that a source called, whether or not there is room for the call.
    ///
    /// - Parameters:
    ///   - name: The source.
    ///   - now: The present.
    /// - Returns: What the source has waiting, without this call.
    mutating func arrived(_ name: String, now: ContinuousClock.Instant) -> (calls: Int, rows: Int) {
        if self.sources[name] == nil, self.sources.count >= Self.sourcesToKeep {
            self.sources = self.sources.filter {
                $0.value.waitingCalls > 0 || $0.value.lastArrival.duration(to: now) < Self.memory
            }
        }
        let source = self.sources[name, default: Source(lastArrival: now)]
        self.sources[name, default: source].lastArrival = now
        return (source.waitingCalls, source.waitingRows)
    }

    /// Gives a call of a source that ``arrived(_:now:)`` noted its turn.
    mutating func queued(_ name: String, rows: Int, experts: Int) -> Turn {
        let before = self.sources[name]?.finish ?? 0
        let start = max(self.virtualTime, before)
        self.sources[name]?.finish = start + UInt64(rows + 4 * experts)
        self.sources[name]?.waitingCalls += 1
        self.sources[name]?.waitingRows += rows
        self.arrivals += 1
        return Turn(start: start, arrival: self.arrivals)
    }

    /// A call no longer waits, for whatever reason.
    mutating func left(_ name: String, rows: Int) {
        self.sources[name]?.waitingCalls -= 1
        self.sources[name]?.waitingRows -= rows
    }

    /// The call with this turn, the least of all, is computed now.
    mutating func began(_ turn: Turn) {
        self.virtualTime = max(self.virtualTime, turn.start)
    }

    /// Nothing waits: what sources were ahead of each other is forgotten.
    mutating func queueEmptied() {
        for source in self.sources.values {
            self.virtualTime = max(self.virtualTime, source.finish)
        }
    }

    /// Sources that called lately or have something waiting.
    func activeSources(now: ContinuousClock.Instant, within time: Duration) -> Int {
        self.sources.values.reduce(0) {
            $0 + ($1.waitingCalls > 0 || $1.lastArrival.duration(to: now) < time ? 1 : 0)
        }
    }
}
