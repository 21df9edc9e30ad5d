// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes

/// One gateway: the machine under test, the layer that is in flight, and what happened to its rows.
struct SimulatedGateway {
    /// What happened to one of the layer's calls.
    enum Outcome {
        case none
        case answered
        case dropped
    }

    /// One connection to a host.
    struct Connection {
        var isUp = true
        /// Which connection this is; a new one gets a new number.
        var number = 0
        /// Attempts to connect since it was lost.
        var tries = 0
        /// The recovery after which calls last went to the host again.
        var recoveredFrom = Int64.min
    }

    var pools: ExpertPools
    var connections: [Connection]
    var load = ExpertLoad()
    var planner: PlacementPlanner

    // The step that runs.
    var step = 0
    var stepStart: Int64 = 0
    var stepDrops = 0
    /// The rest of the step: layers with their rows, the next one last.
    var plan: [(layer: SparseLayer, rows: Int)] = []
    /// Inputs that are due, fractions carried over.
    var inputsDue = 0.0

    // The layer that runs.
    var calls: LayerCalls?
    var layerSerial = 0
    var layerStart: Int64 = 0
    var layer = SparseLayer(stack: .encoder, block: 0)
    var assignments: [PoolAssignment] = []
    var outcomes: [Outcome] = []
    var attemptsOut: [Int] = []

    /// When the earliest planned timer event fires.
    var layerTimerAt = Int64.max
    var poolTimerAt = Int64.max

    init(pools: ExpertPools, hosts: Int, planner: PlacementPlanner) {
        self.pools = pools
        self.connections = Array(repeating: Connection(), count: hosts)
        self.planner = planner
    }

    /// Routes a layer's rows to the pools and makes its calls.
    ///
    /// - Returns: What the machine asks for, and rows whose experts are in no pool.
    mutating func begin(
        _ groups: [(expert: Int, rows: Int)],
        now: ContinuousClock.Instant
    ) -> (actions: [LayerAction], unplaced: Int) {
        let (assignments, unplaced) = self.pools.assignments(of: groups, in: self.layer, now: now)
        self.assignments = assignments
        self.outcomes = Array(repeating: .none, count: assignments.count)
        self.attemptsOut = Array(repeating: 0, count: assignments.count)
        self.layerSerial += 1
        let deadline = self.pools.layerDeadline(of: self.layer, assignments, now: now)
        var calls = LayerCalls(
            layer: self.layer,
            deadline: deadline,
            policy: self.pools.configuration.policy(of: self.layer)
        )
        let actions = calls.begin(assignments, pools: &self.pools, now: now)
        self.calls = calls
        return (actions, unplaced.reduce(0) { $0 + $1.count })
    }

    /// When the layer wants to be woken.
    var nextLayerTimer: ContinuousClock.Instant? { self.calls?.nextTimer }

    /// Whether every call of the layer has ended.
    var isLayerComplete: Bool { self.calls?.isComplete ?? false }

    mutating func answered(_ attempt: AttemptID, now: ContinuousClock.Instant) -> [LayerAction] {
        self.calls?.answered(attempt, pools: &self.pools, now: now) ?? []
    }

    mutating func failed(_ attempt: AttemptID, _ failure: CallFailure, now: ContinuousClock.Instant) -> [LayerAction] {
        self.calls?.failed(attempt, failure, pools: &self.pools, now: now) ?? []
    }

    mutating func layerTimerFired(now: ContinuousClock.Instant) -> [LayerAction] {
        self.calls?.timerFired(pools: &self.pools, now: now) ?? []
    }
}
