// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Which connections a listener holds, and which one leaves for a newcomer: a pure machine.
///
/// A newcomer finds a place as long as there is one, and as long as its peer has less than its share. Otherwise an idle
/// connection leaves for it, the idlest first: of its own peer if that one has its share, or else of the peer that has
/// the most connections. So silent connections keep no peer out. Only where all are busy is a newcomer without a place. Then
/// it gets one of a few places kept for probes, where nothing but probes is served, and where the idlest leaves too.
public struct ConnectionPlaces: Sendable {
    /// How many places there are.
    public struct Limits: Sendable, Hashable {
        /// Connections in all, beside those for probes.
        public var total: Int
        /// Connections of one peer, and of one name.
        public var share: Int
        /// Places kept for probes.
        public var probes: Int

        /// Creates limits.
        ///
        /// - Parameters:
        ///   - total: Connections in all, at least 1.
        ///   - share: Connections of one peer, and of one name, at least 1.
        ///   - probes: Places kept for probes.
        public init(total: Int, share: Int, probes: Int) {
            self.total = max(1, total)
            self.share = max(1, min(share, total))
            self.probes = max(0, probes)
        }
    }

    /// Where a newcomer goes.
    public enum Place: Sendable, Hashable {
        /// Among the others.
        case regular
        /// Where only probes are served.
        case probe
        /// Nowhere: all are busy.
        case none
    }

    private struct Entry: Sendable {
        var peer: String
        var name: String?
        var isProbe: Bool
    }

    private let limits: Limits
    private var entries: [Int: Entry] = [:]
    /// Regular connections by peer and by name; none is 0.
    private var peers: [String: Int] = [:]
    private var names: [String: Int] = [:]
    private var probes = 0

    /// Creates places, all of them free.
    ///
    /// - Parameter limits: How many there are.
    public init(limits: Limits) {
        self.limits = limits
    }

    /// Connections with a place.
    public var count: Int { self.entries.count }

    /// A connection came.
    ///
    /// - Parameters:
    ///   - id: The connection.
    ///   - peer: Whose it is.
    ///   - idleSince: Since when a connection has been idle, on any clock; nil for a busy one.
    /// - Returns: Its place, and which connection must leave; it has no place any more.
    public mutating func arrived(
        _ id: Int,
        from peer: String,
        idleSince: (Int) -> UInt64?
    ) -> (place: Place, leaves: Int?) {
        var leaves: Int?
        let isOverShare = self.peers[peer, default: 0] >= self.limits.share
        if isOverShare || self.entries.count - self.probes >= self.limits.total {
            // The most numerous peer's idlest; where it is busy, anybody's.
            leaves =
                isOverShare
                ? self.idlest(idleSince) { !$0.isProbe && $0.peer == peer }
                : self.idlestOfMost(idleSince) ?? self.idlest(idleSince) { !$0.isProbe }
            guard leaves != nil else { return self.probeArrived(id, from: peer, idleSince) }
        }
        if let leaves { self.left(leaves) }
        self.add(id, Entry(peer: peer, isProbe: false))
        return (.regular, leaves)
    }

    /// A connection in a place for probes wants to do more.
    ///
    /// - Parameter id: The connection.
    /// - Returns: Whether it has a regular place now.
    public mutating func promoted(_ id: Int) -> Bool {
        guard let entry = self.entries[id] else { return false }
        guard entry.isProbe else { return true }
        guard self.entries.count - self.probes < self.limits.total,
            self.peers[entry.peer, default: 0] < self.limits.share
        else { return false }
        self.left(id)
        self.add(id, Entry(peer: entry.peer, isProbe: false))
        return true
    }

    /// A connection's client has proved who it is.
    ///
    /// - Parameters:
    ///   - id: The connection.
    ///   - name: Who.
    ///   - idleSince: Since when a connection has been idle; nil for a busy one.
    /// - Returns: Whether the client may have this connection too, and which other one of it must leave.
    public mutating func identified(
        _ id: Int,
        as name: String,
        idleSince: (Int) -> UInt64?
    ) -> (mayStay: Bool, leaves: Int?) {
        guard let entry = self.entries[id], !entry.isProbe, entry.name != name else { return (true, nil) }
        var leaves: Int?
        if self.names[name, default: 0] >= self.limits.share {
            leaves = self.idlest(idleSince) { $0.name == name }
            guard leaves != nil else { return (false, nil) }
        }
        if let leaves { self.left(leaves) }
        self.left(id)
        self.add(id, Entry(peer: entry.peer, name: name, isProbe: false))
        return (true, leaves)
    }

    /// A connection ended; one without a place is ignored.
    ///
    /// - Parameter id: The connection.
    public mutating func left(_ id: Int) {
        guard let entry = self.entries.removeValue(forKey: id) else { return }
        guard !entry.isProbe else {
            self.probes -= 1
            return
        }
        Self.remove(entry.peer, from: &self.peers)
        if let name = entry.name { Self.remove(name, from: &self.names) }
    }

    // MARK: - Inside

    private mutating func probeArrived(
        _ id: Int,
        from peer: String,
        _ idleSince: (Int) -> UInt64?
    ) -> (place: Place, leaves: Int?) {
        var leaves: Int?
        if self.probes >= self.limits.probes {
            leaves = self.idlest(idleSince) { $0.isProbe }
            guard leaves != nil else { return (.none, nil) }
        }
        if let leaves { self.left(leaves) }
        self.add(id, Entry(peer: peer, isProbe: true))
        return (.probe, leaves)
    }

    private mutating func add(_ id: Int, _ entry: Entry) {
        self.entries[id] = entry
        if entry.isProbe {
            self.probes += 1
        } else {
            self.peers[entry.peer, default: 0] += 1
            if let name = entry.name { self.names[name, default: 0] += 1 }
        }
    }

    private func idlest(_ idleSince: (Int) -> UInt64?, where isMeant: (Entry) -> Bool) -> Int? {
        var found: (id: Int, since: UInt64)?
        for (id, entry) in self.entries where isMeant(entry) {
            guard let since = idleSince(id) else { continue }
            if found.map({ (since, id) < ($0.since, $0.id) }) ?? true { found = (id, since) }
        }
        return found?.id
    }

    private func idlestOfMost(_ idleSince: (Int) -> UInt64?) -> Int? {
        guard let most = self.peers.max(by: { ($0.value, $1.key) < ($1.value, $0.key) })?.key else { return nil }
        return self.idlest(idleSince) { !$0.isProbe && $0.peer == most }
    }

    private static func remove(_ key: String, from counts: inout [String: Int]) {
        let left = counts[key, default: 1] - 1
        counts[key] = left > 0 ? left : nil
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    public func checkInvariants() -> String? {
        let regular = self.entries.values.filter { !$0.isProbe }
        if regular.count > self.limits.total { return "\(regular.count) connections have a place" }
        if self.entries.count - regular.count != self.probes { return "\(self.probes) places for probes are counted" }
        if self.probes > self.limits.probes { return "\(self.probes) places for probes are taken" }
        if self.peers != Dictionary(grouping: regular, by: \.peer).mapValues(\.count) { return "peers are miscounted" }
        let names = Dictionary(grouping: regular.compactMap(\.name), by: \.self).mapValues(\.count)
        if self.names != names { return "names are miscounted" }
        if let most = (Array(self.peers.values) + Array(self.names.values)).max(), most > self.limits.share {
            return "one has \(most) connections"
        }
        return nil
    }

    /// The peer that an address stands for: itself, or the network of 64 bits that one IPv6 host usually has.
    ///
    /// - Parameter address: An address without its port, or any other text.
    /// - Returns: The peer's name.
    public static func peer(of address: String) -> String {
        guard address.contains(":") else { return address }
        // An IPv4 address, on a listener of both families.
        if address.contains("."), let last = address.lastIndex(of: ":") {
            return String(address[address.index(after: last)...])
        }
        let halves = address.prefix { $0 != "%" }.split(separator: ":", omittingEmptySubsequences: false)
        guard let gap = halves.firstIndex(where: \.isEmpty) else {
            return halves.prefix(4).joined(separator: ":") + "::/64"
        }
        let left = halves[..<gap].filter { !$0.isEmpty }
        let right = halves[gap...].filter { !$0.isEmpty }
        let zeros = Array(repeating: Substring("0"), count: max(0, 8 - left.count - right.count))
        return (left + zeros + right).prefix(4).joined(separator: ":") + "::/64"
    }
}

/// Whether a connection is busy, or since when it has been idle; any thread may ask.
public final class ConnectionActivity: Sendable {
    private static let busy = UInt64.max
    private let idleSinceNanoseconds: Atomic<UInt64>

    /// Creates the state of a connection that is idle.
    ///
    /// - Parameter now: Nanoseconds on a monotonic clock.
    public init(now: UInt64) {
        self.idleSinceNanoseconds = Atomic(now)
    }

    /// Since when the connection has been idle, in nanoseconds; nil while it is busy.
    public var idleSince: UInt64? {
        let since = self.idleSinceNanoseconds.load(ordering: .relaxed)
        return since == Self.busy ? nil : since
    }

    /// The connection has something to do.
    public func becameBusy() { self.idleSinceNanoseconds.store(Self.busy, ordering: .relaxed) }

    /// The connection has nothing to do any more.
    ///
    /// - Parameter now: Nanoseconds on the same clock.
    public func becameIdle(now: UInt64) { self.idleSinceNanoseconds.store(now, ordering: .relaxed) }
}
