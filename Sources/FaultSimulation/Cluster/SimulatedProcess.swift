// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import SwitchyardTypes

/// A process: whether it runs, and how its clock and its part of the network are.
struct SimulatedProcess {
    let target: SimulatedFault.Target
    var isAlive = true
    /// Which start this is; events of an earlier one are void.
    var generation = 0
    /// Until then it stands still.
    var hungUntil: Int64 = 0
    /// How far its clock is ahead.
    var clockOffset: Int64 = 0
    /// When it last stood still or its clock jumped: what it owed by then may be late.
    var lastStall: Int64 = -1
    /// Until when timers and notices come twice.
    var duplicateUntil: Int64 = 0
    /// Until when bytes arrive in small pieces.
    var tornUntil: Int64 = 0
    /// Until when it reads slowly.
    var slowReaderUntil: Int64 = 0
    /// Until when everything from and to it takes longer, and how much.
    var delayUntil: Int64 = 0
    var extraDelay: Int64 = 0

    init(_ target: SimulatedFault.Target) { self.target = target }
}

/// One sequence at a gateway.
final class GatewaySequence {
    let id: SequenceID
    let request: SimulatedRequest
    let call: IncomingCall
    /// Its input's rows until it is encoded.
    var rows: [UInt64]
    var digest: UInt64?
    /// The rows that it decodes in this step.
    var decoding: [UInt64] = []
    var tokens: [UInt32] = []
    var drops = 0
    /// Whether its caller has gone.
    var isGone = false

    init(id: SequenceID, request: SimulatedRequest, call: IncomingCall) {
        self.id = id
        self.request = request
        self.call = call
        self.rows = HashModel.input(of: request)
    }
}

/// The different answers to an audited call.
struct CallOpinions {
    var all: [[UInt64]] = []
    /// How many gave each of them; the gateway's own counts as enough.
    var supporters: [Int] = []
    /// Rows of the call on which they differ, by their index in it.
    var conflicting: Set<Int> = []

    /// Adds an answer, and says which number its bits have.
    mutating func add(_ rows: [UInt64], weight: Int) -> Int {
        if let known = self.all.firstIndex(of: rows) {
            self.supporters[known] += weight
            return known
        }
        if let first = self.all.first {
            for row in rows.indices where rows[row] != first[row] { self.conflicting.insert(row) }
        }
        self.all.append(rows)
        self.supporters.append(weight)
        return self.all.count - 1
    }
}

/// A call whose right answer is known: a host that was caught must give it.
struct SimulatedProof {
    let message: [UInt8]
    let expected: [UInt64]
}

/// A layer in flight: the real ``LayerCalls``, and what a runner keeps beside it.
struct GatewayLayer {
    /// Where a dispatched row belongs.
    struct Row {
        let sequence: GatewaySequence
        let index: Int
        let value: UInt64
        let expert: Int
    }

    var calls: LayerCalls
    let layer: SparseLayer
    let serial: Int
    let startedAt: Int64
    /// The rows in the order in which they were dispatched.
    let rows: [Row]
    let assignments: [PoolAssignment]
    /// Experts' outputs by row.
    var outputs: [UInt64?]
    /// Whether each call has been answered or dropped.
    var ended: [Bool]
    /// Attempts in flight.
    var out: [AttemptID: OutgoingCall] = [:]
    /// Where each attempt went.
    var replicas: [AttemptID: ReplicaID] = [:]
    /// Rows that were dropped.
    var dropped: Set<Int> = []
    /// The different answers to each audited call.
    var opinions: [Int: CallOpinions] = [:]
    /// The whole answer that each call was given.
    var taken: [Int: [UInt64]] = [:]
    /// Attempts that were sent while another was silent.
    var hedges: Set<AttemptID> = []
    var timerAt = Int64.max
}

/// A part of a step, which goes through the layers beside the other part.
struct GatewayLane {
    let encodes: [SequenceID]
    let decodes: [SequenceID]
    /// Layers that are left, the next one last.
    var layers: [SparseLayer]
    var layer: GatewayLayer?

    init(encodes: [SequenceID], decodes: [SequenceID], layers: [SparseLayer]) {
        self.encodes = encodes
        self.decodes = decodes
        self.layers = layers
    }
}

/// A gateway: the real ``BatchScheduler`` and ``ExpertPools``, and the loop that runs steps.
struct SimulatedGateway {
    var scheduler: BatchScheduler
    var pools: ExpertPools
    var channels: [ReplicaID: SimulatedChannel] = [:]
    var sequences: [SequenceID: GatewaySequence] = [:]
    var nextSequence: UInt64 = 0
    var nextLayer = 0
    /// The parts of the step that runs; empty between steps.
    var lanes: [GatewayLane] = []
    /// Whether an event will go on with the step or begin one.
    var isWoken = false
    var poolTimerAt = Int64.max
    /// Which process last described itself at each address.
    var instances: [ReplicaID: String] = [:]
    /// Audited answers of each pool that had two supporters, or the gateway's own.
    var vouched: [String: UInt64] = [:]
    /// The calls that caught hosts got wrong.
    var evidence: [ReplicaID: SimulatedProof] = [:]
    /// The addresses that it knows of, in order.
    var known: [ReplicaID] = []
    var isDraining = false
}

/// An expert host: the real ``HostAdmission``, and the loop that computes.
struct SimulatedHost {
    let index: Int
    let pool: Int
    var admission: HostAdmission
    var jobs: [HostAdmission.CallID: HostJob] = [:]
    /// The calls that are computed now.
    var computing: [HostJob] = []
    /// Which computation the next end belongs to.
    var turn = 0
    var wakeAt = Int64.max
    /// Which start of the process describes itself.
    var instance = 0
    /// Until when it computes wrongly, and how.
    var wrongUntil: Int64 = 0
    var wrong = SimulatedFault.WrongAnswer.notFinite
    /// Whether it ever sent rows that look right and are not.
    var hasLied = false
    /// Until when it is slow, and how slow.
    var slowUntil: Int64 = 0
    var slowness: Int64 = 1
    /// Whether its weights are another model's.
    var hasWrongModel = false
    /// Until when it cannot describe itself.
    var notReadyUntil: Int64 = 0
    /// Until when it refuses calls, and whether it fails them instead.
    var refusingUntil: Int64 = 0
    var isBroken = false
    /// Whether its weights are of another type.
    var hasOtherWeights = false
    /// Whether it leaves once nothing is left.
    var leavesWhenIdle = false
    /// When it is started again after it has left.
    var returnsAt: Int64 = 0
}

/// A call at a host.
struct HostJob {
    let id: HostAdmission.CallID
    let call: IncomingCall
    let message: ForwardMessage
    let gateway: Int
    /// Whether its caller has left.
    var isCancelled = false
}

/// A client's view of one of its requests.
struct ClientRequest {
    let request: SimulatedRequest
    var call: OutgoingCall?
    var tokens: [TokenMessage] = []
    /// The status that it ended with, by the number of gRPC's code.
    var status: UInt8?
    var message = ""
    var isCancelled = false
    var sentAt: Int64 = 0
    var endedAt: Int64 = 0
    /// Whether a row of it was computed wrongly by a host that was told to, and went unnoticed.
    var isTainted = false
}
