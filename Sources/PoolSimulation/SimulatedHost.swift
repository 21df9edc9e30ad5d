// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
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
    /// The layer and the experts that it asks for.
    var sparseLayer: SparseLayer
    var groups: [PoolAssignment.Group]
    /// Whether the gateway has its outcome, or no longer needs it.
    var isSettled = false
    /// When the host learns that the call was cancelled.
    var cancelledAt = Int64.max
    /// Whether no event will advance it any more.
    var isStranded = false
}

/// One expert host: the queue that real hosts have before one worker.
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
    /// Which calls it takes, and which it computes together.
    var admission: HostAdmission
    /// Calls that wait.
    var waiting: [HostAdmission.CallID: Int] = [:]
    /// The calls that it computes.
    var current: [Int] = []
    /// Experts whose weights it reads for them.
    var reads = 0
    /// Which computation the next end belongs to.
    var turn = 0
    var currentEnd: Int64 = 0

    init(id: ReplicaID, machines: SimulatedMachines) {
        self.id = id
        self.admission = machines.admission
    }

    /// The process's id: another start has another one.
    var instance: String { "\(self.id.port)-\(self.start)" }

    /// Clears the queue: the process is gone.
    mutating func abandon(_ machines: SimulatedMachines) -> [Int] {
        let flights = self.waiting.sorted { $0.key.rawValue < $1.key.rawValue }.map(\.value) + self.current
        self.admission = machines.admission
        self.waiting = [:]
        self.current = []
        self.turn += 1
        return flights
    }
}
