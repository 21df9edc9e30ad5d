// SPDX-License-Identifier: Apache-2.0

/// What a receiver lets its peer send, on one stream or on the connection (RFC 9113, section 5.2).
///
/// Credit goes back in large steps: once half of the window has been consumed.
struct ReceiveWindow: Sendable {
    /// How many bytes the peer may send without credit.
    var size: Int
    /// Bytes that were received and not credited yet.
    private(set) var used = 0
    /// Those of them that were consumed.
    private(set) var consumed = 0

    init(size: Int) { self.size = size }

    /// Bytes arrived.
    ///
    /// - Returns: Whether the peer was allowed to send them.
    mutating func received(_ count: Int) -> Bool {
        // Nothing needs no room, even in a window that has become smaller than what it holds.
        guard count == 0 || count <= self.size - self.used else { return false }
        self.used += count
        return true
    }

    /// Bytes were consumed, or the window has another size.
    ///
    /// - Returns: The credit to give the peer now; 0 for none yet.
    mutating func consume(_ count: Int) -> Int {
        self.consumed = min(self.used, self.consumed + count)
        guard self.consumed > 0, self.consumed >= self.size / 2 else { return 0 }
        let credit = self.consumed
        self.used -= credit
        self.consumed = 0
        return credit
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    func checkInvariants() -> String? {
        if self.consumed < 0 || self.used < self.consumed {
            return "\(self.consumed) of \(self.used) received bytes were consumed"
        }
        return nil
    }
}

/// What the peer lets this side send, on one stream or on the connection.
struct SendWindow: Sendable {
    /// The largest window (RFC 9113, section 6.9.1).
    static let limit = Int(Int32.max)

    /// How many bytes may be sent; below zero after the peer has made its initial window smaller.
    private(set) var available: Int

    init(available bytes: Int) { self.available = bytes }

    /// The peer gave credit, or changed its initial window.
    ///
    /// - Returns: False if the window would exceed the limit; it stays as it was then.
    mutating func grow(by count: Int) -> Bool {
        guard self.available + count <= Self.limit else { return false }
        self.available += count
        return true
    }

    /// Bytes are sent.
    mutating func sent(_ count: Int) { self.available -= count }
}
