// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import PoolSimulation

/// Everything that a run is made of: the cluster, the requests and the faults.
///
/// A seed draws one; shrinking takes faults and requests away.
package struct FaultScenario: Sendable, Equatable {
    /// Where the run's random numbers come from.
    package var seed: UInt64
    /// The model.
    package var model = HashModel()
    /// Clients, each of which calls one gateway.
    package var clients = 3
    /// Gateways.
    package var gateways = 1
    /// Pools of expert hosts.
    package var pools = 2
    /// Hosts of each pool.
    package var replicas = 2
    /// Bytes of a row on the wire, a multiple of 8.
    package var rowBytes = 8
    /// Batch slots of each gateway.
    package var batchSlots = 4
    /// Requests that may wait at a gateway.
    package var queueLimit = 6
    /// Calls that may wait at a host.
    package var hostCalls = 16
    /// Rows that may wait at a host.
    package var hostRows = 256
    /// How long a host waits for companions of a call, nanoseconds.
    package var companionWindow: Int64 = 0
    /// The gateways learn the placement from their hosts.
    package var learnsPlacement = false
    /// Streams that a host takes on a connection.
    package var hostStreams = 64
    /// The window of a stream, bytes.
    package var windowBytes = 1 << 16
    /// Calls that a gateway has in flight at a host at most.
    package var outstandingPerReplica = 8
    /// Whether the servers' deadline timers fire late, as on a busy event loop.
    package var hasLateTimers = false
    /// The fraction of calls whose answers are compared with a second opinion.
    package var auditFraction = 0.0
    /// Whether the gateways compute rows of audited calls themselves: 0 never, 1 in conflicts, 2 always.
    package var recomputes = 0
    /// Whether gateways answer with headers as soon as a request waits.
    package var sendsHeadsEarly = false
    /// How much further away the clients are than the hosts, nanoseconds.
    package var clientDistance: Int64 = 0
    /// Parts of a step that go through the layers beside each other.
    package var microBatches = 1
    /// Bytes of unfinished requests that a connection may hold.
    package var budgetBytes = 1 << 16
    /// The fraction of calls that may be hedged.
    package var hedgeFraction = 0.2
    /// What the clients ask for.
    package var requests: [SimulatedRequest] = []
    /// What goes wrong.
    package var faults: [SimulatedFault] = []

    /// Hosts of all pools.
    package var hosts: Int { self.pools * self.replicas }

    /// When the last fault is over, nanoseconds.
    var healedAt: Int64 { self.faults.map(\.end).max() ?? 0 }

    /// The pool of a host.
    func pool(of host: Int) -> Int { host % self.pools }

    /// The pool of an expert: neighbours together.
    func pool(ofExpert expert: Int) -> Int { expert * self.pools / self.model.experts }

    /// The same run without faults.
    package var calm: FaultScenario {
        var calm = self
        calm.faults = []
        return calm
    }
}

// MARK: - Drawing

extension FaultScenario {
    private static let millisecond: Int64 = 1_000_000

    /// How long after the last fault a cluster must be whole again, nanoseconds.
    static let settleTime: Int64 = 6_000 * Self.millisecond

    /// Draws the scenario of a seed.
    ///
    /// - Parameter seed: The seed.
    package init(seed: UInt64) {
        self.seed = seed
        var chance = SimulatedChance(seed: seed &* 0x9E37_79B9 &+ 11)
        self.gateways = 1 + chance.index(below: 3)
        self.clients = self.gateways + chance.index(below: 3)
        self.pools = 1 + chance.index(below: 3)
        self.replicas = 1 + chance.index(below: 3)
        if self.replicas == 1, chance.index(below: 2) == 0 { self.replicas = 2 }
        self.model.encoderLayers = 1 + chance.index(below: 2)
        self.model.decoderLayers = 1 + chance.index(below: 2)
        self.rowBytes = [8, 64, 512, 2048][chance.index(below: 4)]
        self.batchSlots = 3 + chance.index(below: 4)
        self.queueLimit = 2 + chance.index(below: 5)
        self.companionWindow = chance.index(below: 2) == 0 ? 0 : 2 * Self.millisecond
        self.learnsPlacement = chance.index(below: 3) == 0
        switch chance.index(below: 6) {
        case 0...1: self.hostCalls = 1 + chance.index(below: 3)
        case 2...3: self.hostRows = 24 + chance.index(below: 4)
        default: break
        }
        if chance.index(below: 4) == 0 { self.hostStreams = 1 + chance.index(below: 2) }
        self.microBatches = 1 + chance.index(below: 3)
        self.auditFraction = [0, 0.2, 1][chance.index(below: 3)]
        self.recomputes = chance.index(below: 3)
        if chance.index(below: 2) == 0 { self.clientDistance = Int64(10 + chance.index(below: 60)) * Self.millisecond }
        self.sendsHeadsEarly = chance.index(below: 2) == 0
        self.hasLateTimers = chance.index(below: 2) == 0
        if chance.index(below: 4) == 0 { self.outstandingPerReplica = 1 }
        if chance.index(below: 4) == 0 { self.budgetBytes = 2 << 10 }
        self.windowBytes = [1 << 10, 1 << 14, 1 << 16][chance.index(below: 3)]
        self.hedgeFraction = chance.index(below: 4) == 0 ? 0 : 0.3
        self.drawRequests(&chance)
        self.drawFaults(&chance)
        self.drawEpilogue(&chance)
    }

    private mutating func drawRequests(_ chance: inout SimulatedChance) {
        let count = 8 + chance.index(below: 14)
        for id in 0..<count {
            var request = SimulatedRequest(
                id: id,
                time: Int64(20 + chance.index(below: 1500)) * Self.millisecond,
                client: chance.index(below: self.clients),
                seed: HashModel.mix(self.seed &+ UInt64(id) &* 977),
                inputTokens: 1 + chance.index(below: 24),
                outputTokens: 1 + chance.index(below: 6)
            )
            if chance.index(below: 5) == 0 { request.slots = 1 + chance.index(below: self.batchSlots) }
            if chance.index(below: 3) == 0 { request.timeout = Int64(60 + chance.index(below: 900)) * Self.millisecond }
            if chance.index(below: 5) == 0 {
                let longest = chance.index(below: 2) == 0 ? 40 : 250
                request.cancelAfter = Int64(chance.index(below: longest)) * Self.millisecond
            }
            if chance.index(below: 6) == 0 { request.queueTimeout = 20 + chance.index(below: 150) }
            request.priority = chance.index(below: 3)
            self.requests.append(request)
        }
        // Some come together, so that queues fill.
        if chance.index(below: 3) == 0 {
            for id in self.requests.indices where id % 3 != 0 {
                self.requests[id].time = Int64(300 + chance.index(below: 40)) * Self.millisecond
            }
        }
        if chance.index(below: 3) == 0 {
            // And some from one client.
            for id in self.requests.indices where id % 2 == 0 { self.requests[id].client = 0 }
        }
        self.requests.sort { ($0.time, $0.id) < ($1.time, $1.id) }
    }

    private mutating func drawFaults(_ chance: inout SimulatedChance) {
        let count = 1 + chance.index(below: 5)
        for _ in 0..<count {
            let time = Int64(100 + chance.index(below: 1500)) * Self.millisecond
            self.faults.append(self.fault(at: time, &chance))
            self.addCompanion(&chance)
            // Two at once.
            if chance.index(below: 3) == 0 { self.faults.append(self.fault(at: time, &chance)) }
        }
        self.faults.sort { $0.time < $1.time }
    }

    /// Some faults are worse together: who is far away or not ready while something else happens.
    private mutating func addCompanion(_ chance: inout SimulatedChance) {
        guard let last = self.faults.last, chance.index(below: 2) == 0 else { return }
        var companion = last
        switch last.kind {
        case .drain(let target):
            companion.kind = .delay(target, Int64(10 + chance.index(below: 800)) * Self.millisecond)
            companion.time = max(0, last.time - 50 * Self.millisecond)
        case .notReady(let host):
            companion.kind = .cut(.host(host))
            companion.time += Int64(chance.index(below: 300)) * Self.millisecond
        case .names(let host, _):
            companion.kind = .delay(.host(host), Int64(10 + chance.index(below: 200)) * Self.millisecond)
            companion.time = max(0, last.time - 10 * Self.millisecond)
        case .torn(let target):
            companion.kind = .slowReader(target)
        case .slowReader(let target):
            companion.kind = .torn(target)
        default: return
        }
        self.faults.append(companion)
    }

    private func target(_ chance: inout SimulatedChance) -> SimulatedFault.Target {
        switch chance.index(below: 8) {
        case 0: .client(chance.index(below: self.clients))
        case 1...2: .gateway(chance.index(below: self.gateways))
        default: .host(chance.index(below: self.hosts))
        }
    }

    private func fault(at time: Int64, _ chance: inout SimulatedChance) -> SimulatedFault {
        let host = chance.index(below: self.hosts)
        let server =
            chance.index(below: 6) == 0
            ? SimulatedFault.Target.gateway(chance.index(below: self.gateways)) : .host(host)
        let target = self.target(&chance)
        let short = Int64(1 + chance.index(below: 250)) * Self.millisecond
        var duration = Int64(20 + chance.index(below: 900)) * Self.millisecond
        let kind: SimulatedFault.Kind
        switch chance.index(below: 24) {
        case 0: kind = .kill(server, isSilent: false)
        case 1: kind = .kill(server, isSilent: true)
        case 2: kind = .wrongModel(host)
        case 3, 4: kind = .hang(server)
        case 5: kind = self.partition(target, &chance)
        case 6: kind = .delay(target, short)
        case 7: kind = .reorder(short)
        case 8: kind = .duplicate(server)
        case 9: kind = .torn(chance.index(below: 2) == 0 ? target : .gateway(chance.index(below: self.gateways)))
        case 10: kind = .cut(target)
        case 11: kind = .slowReader(chance.index(below: 2) == 0 ? target : .gateway(chance.index(below: self.gateways)))
        case 12:
            kind = .clockJump(server, Int64(10 + chance.index(below: 1500)) * Self.millisecond)
            duration = 0
        case 13:
            let all = SimulatedFault.WrongAnswer.allCases
            kind = .wrongBits(host, all[chance.index(below: all.count)])
        case 14:
            let all = SimulatedFault.NameChange.allCases
            kind = .names(host: host, all[chance.index(below: all.count)])
        case 15:
            kind = .drain(server)
            duration += Int64(chance.index(below: 1500)) * Self.millisecond
        case 16: kind = .otherWeights(host)
        case 17: kind = .notReady(host)
        case 18: kind = .refusing(host, isBroken: chance.index(below: 2) == 0)
        case 19:
            kind = .drain(.gateway(chance.index(below: self.gateways)))
            duration += Int64(chance.index(below: 1500)) * Self.millisecond
        case 20...22:
            kind = .wrongBits(host, .plausible)
            duration += 500 * Self.millisecond
        default: kind = .slow(host, Int64(2 + chance.index(below: 30)))
        }
        return SimulatedFault(time: time, duration: duration, kind: kind)
    }

    private func partition(
        _ target: SimulatedFault.Target,
        _ chance: inout SimulatedChance
    ) -> SimulatedFault.Kind {
        let other: SimulatedFault.Target
        switch target {
        case .client(let client): other = .gateway(client % self.gateways)
        case .gateway: other = .host(chance.index(below: self.hosts))
        case .host: other = .gateway(chance.index(below: self.gateways))
        }
        return chance.index(below: 2) == 0 ? .partition(from: target, to: other) : .partition(from: other, to: target)
    }

    /// Requests after everything has healed, one after the other.
    private mutating func drawEpilogue(_ chance: inout SimulatedChance) {
        let start = max(self.healedAt, 3_000 * Self.millisecond) + Self.settleTime
        let first = self.requests.count
        for index in 0..<self.gateways {
            self.requests.append(
                SimulatedRequest(
                    id: first + index,
                    time: start + Int64(index) * 500 * Self.millisecond,
                    client: index,
                    seed: HashModel.mix(self.seed &+ 500_009 &+ UInt64(index)),
                    inputTokens: 6,
                    outputTokens: 3,
                    isEpilogue: true
                )
            )
        }
    }
}
