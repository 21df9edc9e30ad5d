// SPDX-License-Identifier: Apache-2.0

/// The bytes of requests that all connections of a server hold together and that no handler has taken yet.
///
/// A pure machine. Connections tell what they hold in steps, as ``ReceiveBudget`` asks them to. When all of it is over
/// the limit, the machine names connections that must end the call which has cost most, until what those calls hold
/// brings it back. Such a connection reports once it has done so, and can be named again then: so the limit is always
/// reached again, whatever clients do.
public struct SharedReceiveBudget: Sendable {
    /// A connection that holds bytes.
    private struct Connection: Sendable {
        var bytes: Int
        var costliest: HeldBytes
        /// Whether it was told to end that call.
        var isEnding = false
    }

    /// The most bytes that connections may hold together.
    public let limitBytes: Int

    /// The bytes that they hold, as far as they told.
    public private(set) var heldBytes = 0

    /// The bytes of the calls that connections were told to end.
    private var endingBytes = 0
    private var connections: [Int: Connection] = [:]

    /// Creates the budget of a server without connections.
    ///
    /// - Parameter limitBytes: The most bytes that connections may hold together.
    public init(limitBytes: Int) {
        self.limitBytes = max(0, limitBytes)
    }

    /// A connection holds another number of bytes, or has done what it was told.
    ///
    /// - Parameters:
    ///   - connection: The connection.
    ///   - bytes: How many bytes it holds; 0 forgets it.
    ///   - costliest: Its call that has cost most.
    ///   - now: The time in nanoseconds.
    /// - Returns: The connections that must end their costliest call now, and report then.
    public mutating func reported(_ connection: Int, bytes: Int, costliest: HeldBytes, now: UInt64) -> [Int] {
        self.forget(connection)
        if bytes > 0 {
            // A call holds no more than its connection.
            let worst = HeldBytes(bytes: min(max(1, costliest.bytes), bytes), since: costliest.since)
            self.connections[connection] = Connection(bytes: bytes, costliest: worst)
            self.heldBytes += bytes
        }
        return self.connectionsToEnd(now: now)
    }

    /// A connection is gone, with all that it held.
    ///
    /// - Parameter connection: The connection.
    public mutating func forget(_ connection: Int) {
        guard let known = self.connections.removeValue(forKey: connection) else { return }
        self.heldBytes -= known.bytes
        if known.isEnding { self.endingBytes -= known.costliest.bytes }
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    public func checkInvariants() -> String? {
        let held = self.connections.values.reduce(0) { $0 + $1.bytes }
        if held != self.heldBytes { return "the connections hold \(held) bytes, but \(self.heldBytes) are counted" }
        let ending = self.connections.values.filter(\.isEnding).reduce(0) { $0 + $1.costliest.bytes }
        if ending != self.endingBytes { return "\(ending) bytes are ending, but \(self.endingBytes) are counted" }
        if self.heldBytes - self.endingBytes > self.limitBytes, !self.connections.values.allSatisfy(\.isEnding) {
            return "\(self.heldBytes) bytes are held, over \(self.limitBytes), and a connection has not been told"
        }
        return nil
    }

    /// Names connections until the calls that they end bring the rest back to the limit.
    private mutating func connectionsToEnd(now: UInt64) -> [Int] {
        var named: [Int] = []
        while self.heldBytes - self.endingBytes > self.limitBytes {
            var worst: (connection: Int, cost: Double)?
            for (id, connection) in self.connections where !connection.isEnding {
                let cost = connection.costliest.cost(at: now)
                if let known = worst, (known.cost, -known.connection) >= (cost, -id) { continue }
                worst = (id, cost)
            }
            guard let id = worst?.connection, let bytes = self.connections[id]?.costliest.bytes else { break }
            self.connections[id]?.isEnding = true
            self.endingBytes += bytes
            named.append(id)
        }
        return named
    }
}
