// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes

/// A cluster in virtual time: real ``ExpertPools`` and ``LayerCalls``, made-up hosts, network and faults.
///
/// A discrete-event simulation: a queue of events, each at a time, and nothing happens between them. Gateways run steps,
/// each a series of sparse layers; hosts compute calls one after the other; messages take time. Whatever decides in
/// production decides here, and nothing else does. The same configuration gives the same report.
package struct ClusterSimulation {
    enum Event {
        /// The gateway has done its part and reaches the next layer, or the next step.
        case proceed(gateway: Int)
        case arrived(flight: Int)
        case computed(host: Int, turn: Int)
        case replied(flight: Int, CallFailure?)
        case layerTimer(gateway: Int)
        case poolTimer(gateway: Int)
        case connect(gateway: Int, host: Int)
        case connectionLost(gateway: Int, host: Int, connection: Int)
        case described(gateway: Int, host: Int, connection: Int, isAnswered: Bool)
        case drainSeen(gateway: Int, host: Int)
        case plan(gateway: Int)
        case fault
        case hostStops(host: Int, start: Int)
        case hostStarts(host: Int, start: Int)
        case hostResumes(host: Int)
        /// A host has waited for calls that it could compute together with those that it has.
        case hostWakes(host: Int)
        case healed(host: Int)
    }

    let configuration: SimulationConfiguration
    var queue = EventQueue<Event>()
    var now: Int64 = 0
    var hosts: [SimulatedHost] = []
    var gateways: [SimulatedGateway] = []
    var flights: [Flight] = []
    var freeFlights: [Int] = []
    var faultChance: SimulatedChance
    /// Which host is restarted next, in turn.
    var nextInTurn = 0
    var report = SimulationReport()

    private let origin: ContinuousClock.Instant
    private let routing: SimulatedRouting
    private var tokenChance: [SimulatedChance]
    var timeChance: SimulatedChance
    private let layers: [SparseLayer]
    private let poolCount: Int
    /// The gateways' names at the hosts.
    let sourceNames: [String]
    private var running = 0

    /// Creates a simulation in which nothing has happened.
    ///
    /// - Parameter configuration: The cluster and its work.
    /// - Throws: ``SimulationError`` for an impossible cluster.
    package init(_ configuration: SimulationConfiguration) throws(SimulationError) {
        try configuration.check()
        self.configuration = configuration
        // Only differences of instants count.
        self.origin = .now
        self.layers = configuration.model.layers
        self.poolCount = configuration.poolCount
        self.sourceNames = (0..<configuration.gateways).map { "gateway-\($0)" }
        var chance = SimulatedChance(seed: configuration.seed)
        self.routing = SimulatedRouting(
            layers: self.layers,
            experts: configuration.model.experts,
            skew: configuration.scenario == .hot ? max(configuration.skew, 1) : configuration.skew,
            chance: &chance
        )
        self.tokenChance = (0..<configuration.gateways)
            .map { SimulatedChance(seed: configuration.seed &* 1_000_003 &+ UInt64($0)) }
        self.timeChance = SimulatedChance(seed: configuration.seed &* 7_919 &+ 1)
        self.faultChance = SimulatedChance(seed: configuration.seed &* 104_729 &+ 2)
        self.report.scenario = configuration.scenario
        self.report.variant = configuration.variant
        self.makeHosts()
        self.makeGateways()
    }

    /// Runs it.
    ///
    /// - Returns: The report.
    package mutating func run() -> SimulationReport {
        for gateway in self.gateways.indices {
            self.running += 1
            self.queue.add(.proceed(gateway: gateway), at: 0)
            if self.plans { self.queue.add(.plan(gateway: gateway), at: 5_000_000_000) }
        }
        self.beginFaults()
        while self.running > 0, let (time, event) = self.queue.next() {
            self.now = time
            self.report.events += 1
            self.handle(event)
        }
        self.finish()
        return self.report
    }

    /// An instant of virtual time.
    var instant: ContinuousClock.Instant { self.origin.advanced(by: .nanoseconds(self.now)) }

    private var plans: Bool { self.configuration.scenario == .hot && self.configuration.variant != .noPlan }

    func time(of instant: ContinuousClock.Instant) -> Int64 {
        let parts = self.origin.duration(to: instant).components
        return parts.seconds * 1_000_000_000 + (parts.attoseconds + 999_999_999) / 1_000_000_000
    }

    // MARK: - Setting up

    private func name(of pool: Int) -> String {
        let digits = String(pool)
        return "pool-" + String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }

    /// Which pool holds an expert: neighbours together, as `switchyard shard` cuts.
    private func pool(of expert: Int) -> Int { expert * self.poolCount / self.configuration.model.experts }

    private mutating func makeHosts() {
        let replicas = self.configuration.variant == .oneReplica ? 1 : self.configuration.replicas
        for replica in 0..<replicas {
            for pool in 0..<self.poolCount {
                // The port is the index, so that a replica's host is found without a look-up.
                let index = replica * self.poolCount + pool
                self.hosts.append(
                    SimulatedHost(
                        id: ReplicaID(pool: self.name(of: pool), host: "h", port: index + 1),
                        machines: self.configuration.machines
                    )
                )
            }
        }
    }

    private mutating func makeGateways() {
        var table = PlacementTable()
        var held = [[SparseLayer: Set<Int>]](repeating: [:], count: self.poolCount)
        for layer in self.layers {
            for expert in 0..<self.configuration.model.experts {
                let pool = self.pool(of: expert)
                table.place(expert, of: layer, on: self.name(of: pool))
                held[pool][layer, default: []].insert(expert)
                if self.configuration.scenario == .hot {
                    // Every pool's hosts have room for one shard more.
                    held[(pool + 1) % self.poolCount][layer, default: []].insert(expert)
                }
            }
        }
        self.descriptions = held.map { experts in
            ReplicaDescription(fingerprint: 1, experts: experts, modelWidth: self.configuration.model.width)
        }
        for index in 0..<self.configuration.gateways {
            var pools = ExpertPools(
                configuration: self.configuration.effectivePools,
                fingerprint: 1,
                modelWidth: self.configuration.model.width,
                placement: table,
                seed: self.configuration.seed &+ UInt64(index)
            )
            for (index, host) in self.hosts.enumerated() {
                pools.added(host.id)
                _ = pools.connected(host.id)
                var description = self.descriptions[index % self.poolCount]
                description.instance = host.instance
                _ = pools.described(host.id, description, now: self.instant)
            }
            self.gateways.append(
                SimulatedGateway(
                    pools: pools,
                    hosts: self.hosts.count,
                    planner: PlacementPlanner(configuration: self.configuration.planner)
                )
            )
        }
    }

    /// What the hosts of each pool say that they hold.
    var descriptions: [ReplicaDescription] = []

    // MARK: - Events

    private mutating func handle(_ event: Event) {
        switch event {
        case .proceed(let gateway): self.proceed(gateway)
        case .arrived(let flight): self.arrived(flight)
        case .computed(let host, let turn): self.computed(host, turn)
        case .replied(let flight, let failure): self.replied(flight, failure)
        case .layerTimer(let gateway): self.layerTimer(gateway)
        case .poolTimer(let gateway): self.poolTimer(gateway)
        case .connect(let gateway, let host): self.connect(gateway, host)
        case .connectionLost(let gateway, let host, let connection): self.connectionLost(gateway, host, connection)
        case .described(let gateway, let host, let connection, let isAnswered):
            self.described(gateway, host, connection, isAnswered: isAnswered)
        case .drainSeen(let gateway, let host):
            let actions = self.gateways[gateway].pools.draining(self.hosts[host].id, now: self.instant)
            self.perform(actions, of: gateway)
        case .plan(let gateway): self.plan(gateway)
        case .fault: self.nextFault()
        case .hostStops(let host, let start): self.stop(host, start)
        case .hostStarts(let host, let start): self.start(host, start)
        case .hostResumes(let host): self.resume(host)
        case .hostWakes(let host): self.work(host)
        case .healed(let host): self.healed(host)
        }
    }

    /// One way through the network.
    mutating func delay(bytes: Int = 0) -> Int64 {
        let machines = self.configuration.machines
        let seconds =
            machines.latency * self.timeChance.lognormal(machines.jitter) + Double(bytes) / machines.linkBytesPerSecond
        return Int64(seconds * 1e9)
    }

    // MARK: - Steps and layers

    mutating func proceed(_ gateway: Int) {
        while self.gateways[gateway].plan.isEmpty {
            if self.gateways[gateway].step > 0 { self.endStep(gateway) }
            guard self.gateways[gateway].step < self.configuration.steps else {
                self.running -= 1
                return
            }
            self.beginStep(gateway)
        }
        guard let next = self.gateways[gateway].plan.popLast() else { return }
        let groups = self.routing.groups(next.rows, in: next.layer, &self.tokenChance[gateway])
        self.gateways[gateway].layer = next.layer
        self.gateways[gateway].layerStart = self.now
        self.report.rows += next.rows
        if self.plans {
            for group in groups {
                self.gateways[gateway].load.add(group.rows, of: group.expert, in: next.layer, now: self.instant)
            }
        }
        let (actions, unplaced) = self.gateways[gateway].begin(groups, now: self.instant)
        if unplaced > 0 { self.report.violations.append("\(unplaced) rows of \(next.layer) are held by no pool") }
        self.report.calls += self.gateways[gateway].assignments.count
        self.perform(actions, of: gateway)
        self.planLayerTimer(of: gateway)
        self.endLayerIfComplete(gateway)
    }

    private mutating func beginStep(_ gateway: Int) {
        self.gateways[gateway].step += 1
        self.gateways[gateway].stepStart = self.now
        self.gateways[gateway].stepDrops = 0
        self.gateways[gateway].inputsDue +=
            Double(self.configuration.decoderRows) / Double(self.configuration.outputTokens)
        let inputs = Int(self.gateways[gateway].inputsDue)
        self.gateways[gateway].inputsDue -= Double(inputs)
        var plan = self.layers.filter { $0.stack == .decoder }.map { (layer: $0, rows: self.configuration.decoderRows) }
        if inputs > 0 {
            let rows = inputs * self.configuration.inputTokens
            plan = self.layers.filter { $0.stack == .encoder }.map { (layer: $0, rows: rows) } + plan
        }
        self.gateways[gateway].plan = plan.reversed()
    }

    private mutating func endStep(_ gateway: Int) {
        let step = self.gateways[gateway].step
        if self.gateways[gateway].stepDrops > 0 {
            self.report.stepsWithDrops += 1
            self.report.lastStepWithDrops = max(self.report.lastStepWithDrops, step - 1)
        }
        if step > self.configuration.warmUp {
            self.report.stepTimes.append(self.now - self.gateways[gateway].stepStart)
        }
    }

    mutating func endLayerIfComplete(_ gateway: Int) {
        guard self.gateways[gateway].isLayerComplete, let calls = self.gateways[gateway].calls else { return }
        let open = self.gateways[gateway].outcomes.count { $0 == .none }
        if open > 0 { self.report.violations.append("\(open) calls of \(calls.layer) neither answered nor dropped") }
        let late = self.now - self.time(of: calls.deadline)
        if late > 0 { self.report.violations.append("\(calls.layer) ended \(late) ns after its deadline") }
        if self.gateways[gateway].step > self.configuration.warmUp {
            self.report.layerTimes.append(self.now - self.gateways[gateway].layerStart)
        }
        self.gateways[gateway].calls = nil
        self.gateways[gateway].layerTimerAt = .max
        let machines = self.configuration.machines
        var seconds = machines.gatewayLayerSeconds
        if self.gateways[gateway].plan.isEmpty { seconds += machines.gatewayStepSeconds }
        seconds *= self.timeChance.lognormal(0.05)
        self.queue.add(.proceed(gateway: gateway), at: self.now + Int64(seconds * 1e9))
    }

    // MARK: - What the machine asks for

    mutating func perform(_ actions: [LayerAction], of gateway: Int) {
        for action in actions {
            switch action {
            case .send(let attempt, let id): self.send(attempt, to: id.port - 1, of: gateway)
            case .cancel(let attempt): self.cancel(attempt, of: gateway)
            case .drop(let call, let cause): self.drop(call, cause, of: gateway)
            case .pool(let action): self.perform([action], of: gateway)
            case .recompute, .accept, .caught, .dispute, .prove:
                // Nothing is computed here, so nothing is audited.
                self.report.violations.append("an audit was asked for: \(action)")
            }
        }
    }

    mutating func perform(_ actions: [PoolAction], of gateway: Int) {
        for action in actions {
            switch action {
            case .describe(let id): self.describe(id.port - 1, of: gateway)
            case .ejected(let id, _, let reason):
                self.report.ejections += 1
                if case .failed(.deadline) = reason { continue }
                if !self.gateways[gateway].pools.isReady(id.pool) {
                    self.report.violations.append("\(id) was ejected as the last of its pool: \(reason)")
                }
            case .quarantined, .proveEvidence, .cleared, .disputed:
                self.report.violations.append("an audit found something: \(action)")
            case .mismatched(let id, let reason): self.report.violations.append("\(id) was refused: \(reason)")
            case .spare(let id, of: let first): self.report.violations.append("\(id) was taken for \(first)")
            case .joined(let id):
                let host = id.port - 1
                guard let since = self.hosts[host].wellSince,
                    since > self.gateways[gateway].connections[host].recoveredFrom
                else { continue }
                self.gateways[gateway].connections[host].recoveredFrom = since
                self.report.recoveries.append(self.now - since)
            case .draining: break
            }
        }
        self.planPoolTimer(of: gateway)
    }

    /// Checks a gateway's pools after their members or states have changed.
    mutating func checkPools(of gateway: Int) {
        guard let broken = self.gateways[gateway].pools.checkInvariants() else { return }
        self.report.violations.append(broken)
    }

    /// To be called after whatever may make the layer want to be woken earlier: anything but a good answer.
    mutating func planLayerTimer(of gateway: Int) {
        guard let next = self.gateways[gateway].nextLayerTimer else { return }
        let time = max(self.time(of: next), self.now)
        // If a timer is planned too late, an earlier one is added and the late one does nothing.
        guard time < self.gateways[gateway].layerTimerAt else { return }
        self.gateways[gateway].layerTimerAt = time
        self.queue.add(.layerTimer(gateway: gateway), at: time)
    }

    /// To be called after whatever may change when the pools want to be woken: their actions, and lost connections.
    mutating func planPoolTimer(of gateway: Int) {
        guard let next = self.gateways[gateway].pools.nextTimer else { return }
        let time = max(self.time(of: next), self.now)
        guard time < self.gateways[gateway].poolTimerAt else { return }
        self.gateways[gateway].poolTimerAt = time
        self.queue.add(.poolTimer(gateway: gateway), at: time)
    }

    private mutating func layerTimer(_ gateway: Int) {
        guard self.now >= self.gateways[gateway].layerTimerAt else { return }
        self.gateways[gateway].layerTimerAt = .max
        let actions = self.gateways[gateway].layerTimerFired(now: self.instant)
        self.perform(actions, of: gateway)
        self.planLayerTimer(of: gateway)
        self.endLayerIfComplete(gateway)
    }

    private mutating func poolTimer(_ gateway: Int) {
        guard self.now >= self.gateways[gateway].poolTimerAt else { return }
        self.gateways[gateway].poolTimerAt = .max
        self.perform(self.gateways[gateway].pools.timerFired(now: self.instant), of: gateway)
    }

    // MARK: - Plans and the end

    private mutating func plan(_ gateway: Int) {
        let snapshot = PlacementSnapshot(
            of: self.gateways[gateway].pools,
            load: self.gateways[gateway].load,
            layers: self.layers,
            expertCount: self.configuration.model.experts,
            now: self.instant
        )
        if let plan = self.gateways[gateway].planner.change(for: snapshot, now: self.instant) {
            self.report.planChanges += 1
            self.gateways[gateway].pools.setExtras(plan.extras)
        }
        self.queue.add(.plan(gateway: gateway), at: self.now + 5_000_000_000)
    }

    private mutating func finish() {
        self.report.duration = self.now
        self.report.stepTimes.sort()
        self.report.layerTimes.sort()
        self.report.recoveries.sort()
        let tokens = self.configuration.gateways * self.configuration.steps * self.configuration.decoderRows
        self.report.tokensPerSecond = self.now > 0 ? Double(tokens) / (Double(self.now) * 1e-9) : 0
        self.report.notServing = self.gateways.reduce(0) { sum, gateway in
            sum + gateway.pools.reports.count { $0.state != .ready }
        }
        let known = self.report.answered + self.report.droppedRows
        if known != self.report.rows {
            self.report.violations.append("\(self.report.rows) rows were routed, but \(known) came to an end")
        }
    }
}
