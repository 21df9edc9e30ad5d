// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes

/// One attempt in flight: to the host, in its queue, and back.
struct Flight {
    var gateway: Int
    /// Which layer of the gateway it belongs to.
    var layer: Int
    var attempt: AttemptID
    var host: Int
    /// The connection that carries it.
    var connection: Int
    var bytes: Int
    /// What the host needs for it, before chance, nanoseconds.
    var work: Double
    /// Whether the gateway has its outcome, or no longer needs it.
    var isSettled = false
    /// When the host learns that the call was cancelled.
    var cancelledAt = Int64.max
    /// Whether no event will advance it any more.
    var isStranded = false
}

/// One expert host: a queue before one worker.
struct SimulatedHost {
    enum State {
        case up
        /// It finishes its calls and then exits.
        case draining
        /// Its process exists but does nothing.
        case hung
        case down
    }

    let id: ReplicaID
    var state = State.up
    /// Which start of the process this is.
    var start = 0
    /// Its constant slowdown factor.
    var slowness = 1.0
    /// Until then it is cold.
    var coldUntil = Int64.min
    /// Until then no message reaches it or comes from it.
    var cutUntil = Int64.min
    /// When a stopped process continues.
    var hungUntil = Int64.min
    /// When it recovered after a fault; nil until then, and before it had one.
    var wellSince: Int64?
    /// Calls that wait, the next one first from ``head`` on.
    var queue: [Int] = []
    var head = 0
    /// The call that it computes.
    var current: Int?
    /// Which computation the next end belongs to.
    var turn = 0
    var currentEnd: Int64 = 0

    /// The process's id: another start has another one.
    var instance: String { "\(self.id.port)-\(self.start)" }

    var waiting: Int { self.queue.count - self.head }

    mutating func popFirst() -> Int? {
        guard self.head < self.queue.count else { return nil }
        defer {
            self.head += 1
            if self.head == self.queue.count {
                self.queue.removeAll(keepingCapacity: true)
                self.head = 0
            }
        }
        return self.queue[self.head]
    }

    /// Clears the queue: the process is gone.
    mutating func abandon() -> [Int] {
        var flights = Array(self.queue[self.head...])
        if let current = self.current { flights.append(current) }
        self.queue.removeAll(keepingCapacity: true)
        self.head = 0
        self.current = nil
        self.turn += 1
        return flights
    }
}
