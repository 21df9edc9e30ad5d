// SPDX-License-Identifier: Apache-2.0

package import ExpertPooling
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchyardTypes
internal import Synchronization

/// A call whose right answer is known: a replica that was caught must give it.
struct Proof: Sendable {
    let method: Method
    let payload: Payload
    /// The rows in the call's order and the wire's type.
    let expected: ByteBuffer

    /// Makes a proof of a call; nil without rows.
    ///
    /// - Parameters:
    ///   - call: The call.
    ///   - rows: Its right rows as they came.
    init?(_ call: LayerCall, _ rows: ByteBuffer?) {
        guard let rows else { return nil }
        self.method = call.method
        self.payload = call.payload
        self.expected = rows
    }
}

// Caught replicas: the calls that they got wrong, and their proofs.
extension ExpertCluster {
    /// The type in which a pool's hosts keep weights.
    ///
    /// - Parameter pool: The pool's name.
    /// - Returns: The type; nil if they do not say, or may differ.
    func weightType(of pool: String) -> DType? {
        guard !self.configuration.choice.allowsMixedWeightTypes else { return nil }
        return self.state.withLock { $0.pools.weightType(of: pool) }
    }

    /// All replicas, for measurements.
    package var replicaReports: [ReplicaReport] { self.state.withLock { $0.pools.reports } }

    /// The audits of each pool, for measurements.
    package var auditCounts: [String: AuditCounts] { self.state.withLock { $0.pools.counts.mapValues(\.audits) } }

    /// Keeps the call that a replica got wrong.
    func keep(_ proof: Proof, of id: ReplicaID) { self.state.withLock { $0.evidence[id] = proof } }

    /// Sends a caught replica a call and compares its answer.
    func prove(_ proof: Proof, by id: ReplicaID) { self.ask(.prove(id, proof)) }

    /// Sends a caught replica the call that it got wrong.
    ///
    /// One that was caught under another address answers what any of its pool got wrong: all of them hold the same experts.
    func proveEvidence(by id: ReplicaID) {
        let proof = self.state.withLock { state in
            state.evidence[id] ?? state.evidence.filter { $0.key.pool == id.pool }.min { $0.key < $1.key }?.value
        }
        if let proof {
            self.ask(.prove(id, proof))
        } else {
            self.transition { $0.pools.proofEnded(id, .right, now: .now) }
        }
    }

    /// Makes a proof's call.
    func judge(_ proof: Proof, by id: ReplicaID) async {
        let result = await self.result(of: proof, by: id)
        self.transition { state in
            let actions = state.pools.proofEnded(id, result, now: .now)
            if actions.contains(.cleared(id)) { state.evidence[id] = nil }
            return actions
        }
    }

    private func result(of proof: Proof, by id: ReplicaID) async -> ExpertPools.ProofResult {
        guard let channel = self.state.withLock({ $0.channels[id] }) else { return .failed }
        let deadline = ContinuousClock.now.advanced(by: self.configuration.choice.encoder.deadline)
        do {
            let reply = try await channel.unary(proof.method, proof.payload, options: CallOptions(deadline: deadline))
            return LayerCall.tensor(of: reply.message) == proof.expected ? .right : .wrong
        } catch {
            self.logger.debug("a proof failed", metadata: ["replica": "\(id)", "error": "\(error)"])
            return .failed
        }
    }

    /// Says at the start what is audited.
    func logAudits() {
        let fraction = self.configuration.choice.auditFraction
        guard fraction > 0 else {
            self.logger.notice(
                "no call is audited (audit-percent is 0), so wrong outputs of an expert host are not found"
            )
            return
        }
        self.logger.info(
            "calls are audited",
            metadata: [
                "percent": "\(fraction * 100)",
                "pools_with_one_host": self.ownExperts == nil
                    ? "not audited: the model folder holds no experts" : "audited by this gateway",
            ]
        )
    }

    /// Logs what audits found.
    func logAudit(_ action: PoolAction) {
        switch action {
        case .quarantined(let id):
            self.logger.error(
                "an expert host gave wrong outputs and is quarantined; check its memory, its processor and its shard",
                metadata: ["replica": "\(id)"]
            )
        case .cleared(let id):
            self.logger.notice("a quarantined expert host has proved itself", metadata: ["replica": "\(id)"])
        case .disputed(let pool):
            self.logger.error(
                "two expert hosts of a pool give different outputs without a third opinion: differing tokens are dropped; add a host",
                metadata: ["pool": "\(pool)"]
            )
        default:
            break
        }
    }
}
