// SPDX-License-Identifier: Apache-2.0

/// Calls that wait for a connection, in the order in which they came.
struct WaitingCalls {
    private var calls: [ClientCall] = []
    private var first = 0

    /// Calls that wait, with those that have ended meanwhile.
    var count: Int { self.calls.count - self.first }

    /// Whether no call waits.
    var isEmpty: Bool { self.count == 0 }

    /// Adds a call behind all others.
    mutating func append(_ call: ClientCall) { self.calls.append(call) }

    /// Takes the call that has waited longest; nil if none waits.
    mutating func popFirst() -> ClientCall? {
        guard self.first < self.calls.count else { return nil }
        let call = self.calls[self.first]
        self.first += 1
        if self.first == self.calls.count {
            self.calls.removeAll(keepingCapacity: true)
            self.first = 0
        } else if self.first > 256, self.first * 2 > self.calls.count {
            self.calls.removeFirst(self.first)
            self.first = 0
        }
        return call
    }

    /// Takes the calls that wait no longer, and drops those that have ended.
    ///
    /// - Parameter isDue: Whether a call waits no longer.
    /// - Returns: The calls, in order.
    mutating func remove(where isDue: (ClientCall) -> Bool) -> [ClientCall] {
        let open = self.calls[self.first...].filter { !$0.isEnded }
        self.first = 0
        self.calls = open.filter { !isDue($0) }
        return open.filter(isDue)
    }
}
