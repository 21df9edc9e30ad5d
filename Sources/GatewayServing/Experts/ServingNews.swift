// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling

/// Which changes of replicas and pools are worth a log line, as a pure machine.
///
/// A replica or pool that comes and goes many times a second must not fill the log: each gets at most one line per
/// ``interval``. What is held back is said later, if it still holds then, so the last line is always true in the end.
struct ServingNews: Sendable {
    /// One line.
    enum Line: Sendable, Hashable {
        /// The connection to a replica that was verified is lost.
        case lost(ReplicaID)
        /// A pool has lost its last ready replica.
        case poolLost(String)
        /// A pool has a ready replica again, after a time.
        case poolBack(String, after: Duration)
    }

    private struct Entry: Sendable {
        /// Whether the log says that it serves.
        var isSaidUp = true
        var isUp = true
        /// When the log last said something.
        var saidAt: ContinuousClock.Instant?
        var lostAt: ContinuousClock.Instant?
    }

    /// The least time between two lines about one replica or pool.
    static let interval = Duration.seconds(10)

    private var replicas: [ReplicaID: Entry] = [:]
    private var pools: [String: Entry] = [:]

    /// Whether something is held back.
    var isPending: Bool {
        self.replicas.values.contains { $0.isUp != $0.isSaidUp }
            || self.pools.values.contains { $0.isUp != $0.isSaidUp }
    }

    /// Notes whether a replica serves.
    ///
    /// - Parameters:
    ///   - id: The replica; one that has never served makes no news.
    ///   - isUp: Whether it does; that it does is no line here, since the pools' own report says so.
    ///   - now: The current time.
    mutating func note(_ id: ReplicaID, isUp: Bool, now: ContinuousClock.Instant) {
        guard self.replicas[id] != nil || isUp else { return }
        self.replicas[id, default: Entry()].isUp = isUp
        if isUp { self.replicas[id]?.isSaidUp = true }
    }

    /// Forgets a replica that has left its pool.
    mutating func forget(_ id: ReplicaID) { self.replicas[id] = nil }

    /// Notes whether a pool has a ready replica; a pool that has never had one makes no news.
    ///
    /// - Parameters:
    ///   - pool: Its name.
    ///   - isUp: Whether it has.
    ///   - now: The current time.
    mutating func note(pool: String, isUp: Bool, now: ContinuousClock.Instant) {
        guard var entry = self.pools[pool] ?? (isUp ? Entry() : nil) else { return }
        if entry.isUp, !isUp, entry.isSaidUp { entry.lostAt = now }
        entry.isUp = isUp
        self.pools[pool] = entry
    }

    /// What to log now.
    ///
    /// - Parameter now: The current time.
    /// - Returns: The lines, replicas first, in the order of their names.
    mutating func lines(now: ContinuousClock.Instant) -> [Line] {
        var lines: [Line] = []
        for id in self.replicas.keys.sorted() where Self.isDue(&self.replicas[id], now: now) { lines.append(.lost(id)) }
        for pool in self.pools.keys.sorted() where Self.isDue(&self.pools[pool], now: now) {
            let lostAt = self.pools[pool]?.lostAt ?? now
            lines.append(
                self.pools[pool]?.isUp == true ? .poolBack(pool, after: lostAt.duration(to: now)) : .poolLost(pool)
            )
        }
        return lines
    }

    private static func isDue(_ entry: inout Entry?, now: ContinuousClock.Instant) -> Bool {
        guard let old = entry, old.isUp != old.isSaidUp else { return false }
        // That a pool is back is said at once: its loss was said, and nothing more follows for a while.
        guard old.isUp || old.saidAt.map({ $0.duration(to: now) >= Self.interval }) ?? true else { return false }
        entry?.isSaidUp = old.isUp
        entry?.saidAt = now
        return true
    }
}
