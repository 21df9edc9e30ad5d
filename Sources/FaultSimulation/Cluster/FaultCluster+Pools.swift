// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import PoolSimulation
internal import RPCCore
internal import SwitchyardTypes

// A gateway's view of its hosts: what the gateway's runner does around `ExpertPools`.
extension FaultCluster {
    private static let describeTimeout: Int64 = 400_000_000
    /// How long a name's change takes to reach a gateway at most, nanoseconds.
    private static let lookupTime = 40_000_000

    func poolName(_ pool: Int) -> String { "pool-\(pool)" }

    /// The gateways' bounds, shorter than in production so that a run need not last minutes.
    var poolsConfiguration: ExpertPoolsConfiguration {
        var configuration = ExpertPoolsConfiguration.defaults
        configuration.outstandingPerReplica = self.scenario.outstandingPerReplica
        configuration.encoder = LayerPolicy(deadline: .milliseconds(300), attempts: 4, patience: .milliseconds(150))
        configuration.decoder = LayerPolicy(deadline: .milliseconds(200), attempts: 3, patience: .milliseconds(50))
        configuration.hedgeFraction = self.scenario.hedgeFraction
        configuration.hedgeBurst = 4
        configuration.auditFraction = self.scenario.auditFraction
        configuration.proofsToServe = 4
        configuration.shortestHedgeDelay = .milliseconds(3)
        configuration.unknownHedgeDelay = .milliseconds(40)
        configuration.samplesToBelieve = 8
        configuration.retryTokens = 20
        configuration.firstEjection = .milliseconds(100)
        configuration.longestEjection = .seconds(2)
        configuration.longestLastEjection = .seconds(1)
        configuration.longestProbeInterval = .milliseconds(400)
        configuration.successesToForgive = 20
        configuration.describeRetry = .milliseconds(50)
        return configuration
    }

    func makePools(_ gateway: Int) -> ExpertPools {
        var table = PlacementTable()
        for layer in self.scenario.model.encoder + self.scenario.model.decoder {
            for expert in 0..<self.scenario.model.experts {
                table.place(expert, of: layer, on: self.poolName(self.scenario.pool(ofExpert: expert)))
            }
        }
        return ExpertPools(
            configuration: self.poolsConfiguration,
            fingerprint: 1,
            modelWidth: 16,
            placement: self.scenario.learnsPlacement ? nil : table,
            seed: self.scenario.seed &+ UInt64(gateway) &+ UInt64(self.processes.count)
        )
    }

    /// Tells the gateways what a pool's name resolves to, each at a time of its own.
    func announceNames(of pool: Int) {
        for gateway in self.gateways.indices {
            let process = self.process(ofGateway: gateway)
            self.after(Int64(self.chance.index(below: Self.lookupTime)), process, .names(pool: pool))
        }
    }

    /// A gateway looks a name up: it finds what is true now.
    func namesFound(_ gateway: Int, _ pool: Int) {
        let ports = self.names[pool]
        let name = self.poolName(pool)
        let found = ports.map { ReplicaID(pool: name, host: "host", port: $0) }
        let process = self.process(ofGateway: gateway)
        self.log("gateway \(gateway) finds \(ports) for \(name)")
        for replica in self.gateways[gateway].known where replica.pool == name && !found.contains(replica) {
            let hasCalls = self.gateways[gateway].lanes
                .contains { lane in
                    lane.layer?.out.keys.contains { lane.layer?.replicas[$0] == replica } ?? false
                }
            if hasCalls { self.note(.removedWithOpenCalls) }
            self.gateways[gateway].pools.removed(replica, now: self.time(process))
            self.gateways[gateway].known.removeAll { $0 == replica }
            if let channel = self.gateways[gateway].channels.removeValue(forKey: replica) { self.stop(channel) }
        }
        for replica in found where !self.gateways[gateway].known.contains(replica) {
            let channel = self.makeChannel(owner: process, port: replica.port)
            self.gateways[gateway].channels[replica] = channel
            self.gateways[gateway].known.append(replica)
            self.gateways[gateway].pools.added(replica)
            self.connect(channel)
        }
        self.planPoolTimer(gateway)
    }

    // MARK: - Descriptions

    func describe(_ replica: ReplicaID, of gateway: Int) {
        guard let channel = self.gateways[gateway].channels[replica] else { return }
        let process = self.process(ofGateway: gateway)
        let call = self.call(
            .describe(gateway: gateway, replica: replica),
            Self.describe,
            [0],
            on: channel,
            deadline: self.clock(process) + Self.describeTimeout,
            waitsForReady: false
        )
        self.start(call, on: channel)
    }

    func describeEnded(_ gateway: Int, _ replica: ReplicaID, _ call: OutgoingCall, _ end: ClientCallState.End) {
        let now = self.time(call.process)
        guard end.status.isOK, let message = call.response, let found = self.description(message) else {
            self.note(.describeFailed)
            let before = self.gateways[gateway].pools.reports.first { $0.id == replica }?.state
            if before == .probing { self.note(.probeFailed) }
            self.gateways[gateway].pools.describeFailed(replica, end.status.message, now: now)
            self.planPoolTimer(gateway)
            return
        }
        if let known = self.gateways[gateway].instances[replica], known != found.description.instance {
            self.note(.anotherInstance)
        }
        self.gateways[gateway].instances[replica] = found.description.instance
        self.follow(self.gateways[gateway].pools.described(replica, found.description, now: now), of: gateway)
        if self.processes[call.process].duplicateUntil > self.now {
            self.follow(self.gateways[gateway].pools.described(replica, found.description, now: now), of: gateway)
        }
    }

    private func description(_ bytes: [UInt8]) -> (description: ReplicaDescription, isLeaving: Bool)? {
        var reader = WireReader(bytes)
        guard let pool = reader.read(UInt16.self), let host = reader.read(UInt32.self),
            let instance = reader.read(UInt32.self), let wrong = reader.read(UInt8.self),
            let other = reader.read(UInt8.self),
            let leaving = reader.read(UInt8.self), reader.isAtEnd
        else { return nil }
        var experts: [SparseLayer: Set<Int>] = [:]
        for layer in self.scenario.model.encoder + self.scenario.model.decoder {
            experts[layer] = Set(
                (0..<self.scenario.model.experts).filter { self.scenario.pool(ofExpert: $0) == Int(pool) }
            )
        }
        let description = ReplicaDescription(
            fingerprint: wrong == 1 ? 2 : 1,
            experts: experts,
            modelWidth: 16,
            weightType: other == 1 ? .bfloat16 : .float32,
            instance: "\(host)-\(instance)"
        )
        return (description, leaving == 1)
    }

    // MARK: - Actions and timers

    func follow(_ actions: [PoolAction], of gateway: Int) {
        for action in actions {
            self.log("gateway \(gateway): \(action)")
            switch action {
            case .describe(let replica): self.describe(replica, of: gateway)
            case .ejected(let replica, _, let reason): self.noteEjection(replica, reason, of: gateway)
            case .mismatched: self.note(.mismatched)
            case .spare: self.note(.spareAddress)
            case .joined(let replica): self.noteJoined(replica, of: gateway)
            case .draining: self.note(.drainSeen)
            case .quarantined: self.note(.quarantined)
            case .proveEvidence(let replica): self.proveEvidence(gateway, replica)
            case .cleared(let replica):
                self.note(.cleared)
                self.gateways[gateway].evidence[replica] = nil
            case .disputed: self.note(.disputed)
            }
        }
        self.planPoolTimer(gateway)
    }

    private func noteEjection(_ replica: ReplicaID, _ reason: EjectionReason, of gateway: Int) {
        if self.scenario.faults.isEmpty, case .failed(let failure) = reason, failure != .overloaded,
            failure != .deadline
        {
            self.violated("\(replica) was ejected in a calm cluster: \(reason)")
        }
        switch reason {
        case .failed(.deadline): self.note(.ejectedForDeadlines)
        case .failed(.badReply): self.note(.ejectedForBadReply)
        case .failed: self.note(.ejectedForFailures)
        case .overtaken: self.note(.ejectedAsOvertaken)
        case .slow: self.note(.ejectedAsSlow)
        }
        if !self.gateways[gateway].pools.isReady(replica.pool) {
            self.note(.ejectedLast)
            if reason != .failed(.deadline) { self.violated("\(replica) was ejected as its pool's last: \(reason)") }
        }
    }

    private func noteJoined(_ replica: ReplicaID, of gateway: Int) {
        if let host = self.addresses[replica.port], self.hosts[host].hasWrongModel {
            self.violated("\(replica) joined with another model")
        }
    }

    func planPoolTimer(_ gateway: Int) {
        guard let next = self.gateways[gateway].pools.nextTimer else { return }
        let process = self.process(ofGateway: gateway)
        let time = max(self.nanoseconds(next), self.clock(process))
        guard time < self.gateways[gateway].poolTimerAt else { return }
        self.gateways[gateway].poolTimerAt = time
        self.at(time, process, .poolTimer)
    }

    func poolTimer(_ gateway: Int) {
        let process = self.process(ofGateway: gateway)
        if self.clock(process) >= self.gateways[gateway].poolTimerAt { self.gateways[gateway].poolTimerAt = .max }
        self.follow(self.gateways[gateway].pools.timerFired(now: self.time(process)), of: gateway)
    }
}
