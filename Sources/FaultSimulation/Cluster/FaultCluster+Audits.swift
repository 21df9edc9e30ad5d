// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import PoolSimulation
internal import RPCCore
internal import SwitchyardTypes

// Audited calls and caught hosts: what the gateway's runner compares, computes again and sends as proofs.
extension FaultCluster {
    /// How long a proof may take, nanoseconds.
    private static let proofTimeout: Int64 = 300_000_000

    func performAudit(_ action: LayerAction, of index: Int, _ lane: Int) {
        guard let layer = self.gateways[index].lanes[lane].layer else { return }
        switch action {
        case .recompute(let call):
            self.note(.recomputed)
            let time = 1_000_000 + Int64(self.chance.index(below: 4_000_000))
            self.after(time, self.process(ofGateway: index), .recomputed(lane: lane, layer.serial, call: call))
        case .accept(let call, let opinion):
            guard let opinions = layer.opinions[call], opinions.all.indices.contains(opinion) else {
                self.violated("opinion \(opinion) on call \(call) is accepted, but was never given")
                return
            }
            let places = layer.assignments[call].groups.flatMap(\.rows)
            if opinions.supporters[opinion] > 1 {
                self.gateways[index].vouched[layer.assignments[call].pool, default: 0] += 1
            }
            var taking = layer
            self.take(
                opinions.all[opinion],
                places,
                of: call,
                in: &taking,
                isChecked: opinions.supporters[opinion] > 1
            )
            self.gateways[index].lanes[lane].layer = taking
        case .caught(let call, let replica):
            self.note(.caught)
            if let host = self.addresses[replica.port], !self.hosts[host].hasLied {
                self.violated("false alarm: \(replica) was caught, but never gave a wrong row")
            }
            self.gateways[index].evidence[replica] = self.proof(of: call, in: layer)
        case .dispute(let call):
            guard let opinions = layer.opinions[call], let first = opinions.all.first else { return }
            let places = layer.assignments[call].groups.flatMap(\.rows)
            for (row, place) in places.enumerated() where !opinions.conflicting.contains(row) {
                self.check(first[row], of: layer.rows[place], in: layer.layer, isChecked: true)
                self.gateways[index].lanes[lane].layer?.outputs[place] = first[row]
            }
        case .prove(let call, let replica):
            if let proof = self.proof(of: call, in: layer) { self.prove(proof, index, replica) }
        case .send, .cancel, .drop, .pool: break
        }
    }

    private func proof(of call: Int, in layer: GatewayLayer) -> SimulatedProof? {
        guard let rows = layer.taken[call] else { return nil }
        let groups = layer.assignments[call].groups
            .map { group in
                ForwardMessage.Group(expert: group.expert, rows: group.rows.map { layer.rows[$0].value })
            }
        let message = ForwardMessage(layer: layer.layer, groups: groups).bytes(rowBytes: self.scenario.rowBytes)
        return SimulatedProof(message: message, expected: rows)
    }

    /// The gateway has computed a call's rows; it gives up now and then.
    func recomputed(_ index: Int, _ lane: Int, _ serial: Int, _ call: Int) {
        guard self.gateways[index].lanes.indices.contains(lane),
            self.gateways[index].lanes[lane].layer?.serial == serial
        else { return }
        let now = self.time(self.process(ofGateway: index))
        let hasFailed = self.chance.index(below: 8) == 0
        self.step(index, lane) { layer, pools in
            guard !hasFailed else { return layer.calls.recomputed(call, opinion: nil, pools: &pools, now: now) }
            let rows = layer.assignments[call].groups.flatMap(\.rows)
                .map { place in
                    HashModel.output(of: layer.rows[place].expert, in: layer.layer, for: layer.rows[place].value)
                }
            var opinions = layer.opinions[call] ?? CallOpinions()
            let number = opinions.add(rows, weight: 2)
            layer.opinions[call] = opinions
            let conflicting = opinions.conflicting.count
            return layer.calls.recomputed(call, opinion: number, conflicting: conflicting, pools: &pools, now: now)
        }
    }

    // MARK: - Proofs

    func proveEvidence(_ index: Int, _ replica: ReplicaID) {
        let evidence = self.gateways[index].evidence
        let others = evidence.filter { $0.key.pool == replica.pool }
        if let proof = evidence[replica] ?? others.min(by: { $0.key < $1.key })?.value {
            self.prove(proof, index, replica)
        } else {
            let now = self.time(self.process(ofGateway: index))
            self.follow(self.gateways[index].pools.proofEnded(replica, .right, now: now), of: index)
        }
    }

    private func prove(_ proof: SimulatedProof, _ index: Int, _ replica: ReplicaID) {
        self.note(.proof)
        let process = self.process(ofGateway: index)
        guard let channel = self.gateways[index].channels[replica] else {
            self.follow(self.gateways[index].pools.proofEnded(replica, .failed, now: self.time(process)), of: index)
            return
        }
        let call = self.call(
            .proof(gateway: index, replica: replica, expected: proof.expected),
            Self.forward,
            proof.message,
            on: channel,
            deadline: self.clock(process) + Self.proofTimeout,
            waitsForReady: false
        )
        self.start(call, on: channel)
    }

    func proofEnded(
        _ index: Int,
        _ replica: ReplicaID,
        _ expected: [UInt64],
        _ call: OutgoingCall,
        _ end: ClientCallState.End
    ) {
        var result = ExpertPools.ProofResult.failed
        if end.status.isOK, let message = call.response {
            let rows = ForwardReply(message, rowBytes: self.scenario.rowBytes)?.rows
            result = rows == expected ? .right : .wrong
            if result == .wrong { self.note(.proofWrong) }
        }
        self.follow(self.gateways[index].pools.proofEnded(replica, result, now: self.time(call.process)), of: index)
    }
}
