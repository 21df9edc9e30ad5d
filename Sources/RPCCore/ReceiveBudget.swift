// SPDX-License-Identifier: Apache-2.0

/// Something that is held for a call: how much, and for how long.
public struct HeldBytes: Sendable, Hashable {
    /// The number of bytes.
    public var bytes: Int

    /// When they began to be held, in nanoseconds; later if a handler has taken some since.
    public var since: UInt64

    /// Creates a value.
    ///
    /// - Parameters:
    ///   - bytes: The number of bytes.
    ///   - since: When they began to be held, in nanoseconds.
    public init(bytes: Int, since: UInt64) {
        self.bytes = bytes
        self.since = since
    }

    /// What holding them has cost by a point in time: bytes times nanoseconds.
    ///
    /// The call that has cost most is the first to end. So a message that arrives at once is safe from others that have
    /// taken their time, however small the parts are that those hold. Bytes that have just come count as held for a
    /// microsecond, so that of several such calls the largest has cost most.
    ///
    /// - Parameter now: The point in time, in nanoseconds.
    /// - Returns: The cost.
    public func cost(at now: UInt64) -> Double {
        let age = now > self.since ? now - self.since : 0
        return Double(self.bytes) * (Double(age) + 1_000)
    }
}

/// The bytes of requests that one connection holds and that no handler has taken yet: parts of messages, and messages
/// that wait.
///
/// A pure machine. The runner says how many bytes a call holds whenever that changes, ends the calls that
/// ``callToEnd(now:)`` names until it names none, and tells the server's own budget (``SharedReceiveBudget``) whenever
/// ``changed(_:to:now:)`` asks for it. A message that is alone on its connection is never ended: whether it is too
/// large, its own limit has decided before its first byte was kept.
///
/// The server's budget counts in steps, so that calls of a few bytes never touch it: it misses at most one step of each
/// connection.
public struct ReceiveBudget: Sendable {
    /// The most bytes that the connection's calls may hold together.
    public let limitBytes: Int

    /// How far the server's count may be behind.
    public let stepBytes: Int

    /// The bytes that the calls hold together.
    public private(set) var heldBytes = 0

    /// What the server was told.
    public private(set) var reportedBytes = 0

    /// What each call holds; calls that hold nothing are not in it.
    private var calls: [Int32: HeldBytes] = [:]

    /// Creates the budget of a connection that holds nothing.
    ///
    /// - Parameters:
    ///   - limitBytes: The most bytes that its calls may hold together.
    ///   - stepBytes: How far the server's count may be behind; at least 1.
    public init(limitBytes: Int, stepBytes: Int) {
        self.limitBytes = max(0, limitBytes)
        self.stepBytes = max(1, stepBytes)
    }

    /// How many calls hold bytes.
    public var callCount: Int { self.calls.count }

    /// A call holds another number of bytes than before.
    ///
    /// - Parameters:
    ///   - call: The call's stream.
    ///   - bytes: How many bytes it holds now; 0 forgets the call.
    ///   - now: The time in nanoseconds; not asked for where it does not matter.
    /// - Returns: Whether the server must be told, with ``report(now:)``.
    public mutating func changed(_ call: Int32, to bytes: Int, now: @autoclosure () -> UInt64) -> Bool {
        let before = self.calls[call]
        if bytes <= 0 {
            guard let before else { return false }
            self.calls[call] = nil
            self.heldBytes -= before.bytes
        } else if let before {
            // A call whose handler takes what it gets is no older than what it has left.
            self.calls[call] = HeldBytes(bytes: bytes, since: bytes < before.bytes ? now() : before.since)
            self.heldBytes += bytes - before.bytes
        } else {
            self.calls[call] = HeldBytes(bytes: bytes, since: now())
            self.heldBytes += bytes
        }
        return self.isReportDue
    }

    /// The call that must end now, because all of them hold too much together.
    ///
    /// - Parameter now: The time in nanoseconds.
    /// - Returns: The call that has cost most; nil within the limit, or for a call that is alone.
    public func callToEnd(now: UInt64) -> Int32? {
        guard self.heldBytes > self.limitBytes, self.calls.count > 1 else { return nil }
        return self.costliest(now: now)?.call
    }

    /// The call that has cost most.
    ///
    /// - Parameter now: The time in nanoseconds.
    /// - Returns: The call and what it holds; nil if none holds anything. Of two that have cost the same, the older one.
    public func costliest(now: UInt64) -> (call: Int32, held: HeldBytes)? {
        var worst: (call: Int32, held: HeldBytes, cost: Double)?
        for (call, held) in self.calls {
            let cost = held.cost(at: now)
            if let known = worst, (known.cost, -known.call) >= (cost, -call) { continue }
            worst = (call, held, cost)
        }
        return worst.map { ($0.call, $0.held) }
    }

    /// What the server is told; the machine takes it for said.
    ///
    /// - Parameter now: The time in nanoseconds.
    /// - Returns: All bytes, and the call that has cost most; no bytes while a step would hold them.
    public mutating func report(now: UInt64) -> (bytes: Int, costliest: HeldBytes) {
        self.reportedBytes = self.heldBytes < self.stepBytes ? 0 : self.heldBytes
        return (self.reportedBytes, self.costliest(now: now)?.held ?? HeldBytes(bytes: 0, since: now))
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    public func checkInvariants() -> String? {
        let held = self.calls.values.reduce(0) { $0 + $1.bytes }
        if held != self.heldBytes { return "the calls hold \(held) bytes, but \(self.heldBytes) are counted" }
        if self.calls.values.contains(where: { $0.bytes <= 0 }) { return "a call that holds nothing is kept" }
        if self.reportedBytes < 0 || self.heldBytes < 0 { return "a count is negative" }
        return nil
    }

    /// Whether the server's count is a step behind, or the connection has given back all that it was charged with.
    private var isReportDue: Bool {
        abs(self.heldBytes - self.reportedBytes) >= self.stepBytes || (self.heldBytes == 0 && self.reportedBytes > 0)
    }
}
