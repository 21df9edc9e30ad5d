// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension ExpertPools {
    /// Why a replica must not be used; nil if it may.
    func objection(to description: ReplicaDescription, from slot: Int) -> String? {
        guard description.fingerprint == self.fingerprint else {
            return "it serves the model \(description.fingerprint.fingerprintText), but this gateway serves "
                + "\(self.fingerprint.fingerprintText): start it with a shard of the same checkpoint"
        }
        guard description.modelWidth == self.modelWidth else {
            return "its token rows are \(description.modelWidth) wide, but this model's are \(self.modelWidth)"
        }
        let rowType = self.configuration.rowType
        guard description.rowTypes.isEmpty || description.rowTypes.contains(rowType) else {
            let accepted = description.rowTypes.map(\.rawValue).sorted().joined(separator: ", ")
            return "it accepts token rows in \(accepted), but this gateway sends \(rowType.rawValue): choose another "
                + "wire type for the gateway, or another version of the host"
        }
        return self.objectionToWeights(of: description, from: slot)
            ?? self.objectionToExperts(of: description, from: slot) ?? description.trouble
    }

    /// Asks a pool's refused replicas again if the reason no longer holds or has become another one.
    ///
    /// A reason may speak of siblings and of the placement, so it is judged again whenever either changes: a healthy
    /// replica must not stay refused for the sake of one that is gone.
    mutating func judgeRefused(in pool: Int, now: ContinuousClock.Instant) {
        for slot in self.pools[pool].members {
            guard case .mismatched(let reason) = self.replicas[slot].state,
                let description = self.replicas[slot].description,
                self.objection(to: description, from: slot) != reason
            else { continue }
            self.replicas[slot].state = .unverified
            self.replicas[slot].describeAgain = now
        }
    }

    /// The first invariant that does not hold, in words; nil if all hold.
    ///
    /// - A pool's list of ready replicas names exactly those of its members whose state is ready.
    /// - A replica is refused only for a reason that holds now, so never for the sake of one that is absent.
    /// - Every ready replica holds the experts that are placed on its pool, extra ones included.
    /// - A replica that was caught with wrong rows is in no state in which its answers are used until it has proved itself.
    /// - A process is one replica: of its addresses in a pool one stands for it, and the others are spare.
    package func checkInvariants() -> String? {
        for pool in self.pools {
            let ready = pool.members.filter { self.replicas[$0].state == .ready }
            guard ready.sorted() == pool.ready.sorted() else {
                return "pool \(pool.name) lists \(pool.ready) as ready, but \(ready) are"
            }
            if let broken = self.placementBroken(in: pool) ?? self.instancesBroken(in: pool) { return broken }
            for slot in pool.members {
                if let broken = self.quarantineBroken(slot) { return broken }
                guard case .mismatched(let reason) = self.replicas[slot].state else { continue }
                guard let description = self.replicas[slot].description else {
                    return "\(self.replicas[slot].id) is refused, but has not described itself"
                }
                let objection = self.objection(to: description, from: slot)
                guard objection == reason else {
                    return "\(self.replicas[slot].id) is refused because \(reason); now: \(objection ?? "nothing")"
                }
            }
        }
        return self.countsBroken()
    }

    private func placementBroken(in pool: Pool) -> String? {
        let placed = self.placement.experts(of: pool.name)
            .merging(self.placement.extras(on: pool.name)) { $0.union($1) }
        for slot in pool.ready {
            let held = self.replicas[slot].description?.experts ?? [:]
            for (layer, experts) in placed where !experts.isSubset(of: held[layer] ?? []) {
                return "\(self.replicas[slot].id) is ready, but lacks experts of layer \(layer) that are placed there"
            }
        }
        return nil
    }

    private func quarantineBroken(_ slot: Int) -> String? {
        let replica = self.replicas[slot]
        switch replica.state {
        case .ready, .ejected, .probing:
            return replica.quarantine == nil ? nil : "\(replica.id) is \(replica.state.name), but was caught"
        case .quarantined:
            return replica.quarantine == nil ? "\(replica.id) is quarantined, but has nothing to prove" : nil
        case .disconnected, .unverified, .draining, .mismatched, .spare:
            return nil
        }
    }

    private func instancesBroken(in pool: Pool) -> String? {
        for slot in pool.members {
            let replica = self.replicas[slot]
            let other = self.holder(of: replica.instance, in: replica.pool, besides: slot)
            if case .spare(let first) = replica.state {
                guard let other, self.replicas[other].id == first else {
                    return "\(replica.id) is a spare address of \(first), which does not stand for its process"
                }
            } else if replica.state.holdsInstance, let other {
                return "\(replica.id) and \(self.replicas[other].id) both stand for one process"
            }
        }
        return nil
    }

    /// Replicas of a pool must give the same answers, bit for bit, or an answer would depend on the replica.
    private func objectionToWeights(of description: ReplicaDescription, from slot: Int) -> String? {
        if let wanted = self.configuration.weightTypes, !(description.weightType.map(wanted.contains) ?? false) {
            let names = wanted.map(\.rawValue).sorted().joined(separator: " or ")
            return
                "it keeps weights in \(description.weightType?.rawValue ?? "a type that it does not give"), but they must be "
                + "exact here: start it with weights in \(names) (--dtype, or a shard that is packed in it)"
        }
        guard !self.configuration.allowsMixedWeightTypes, let own = description.weightType else { return nil }
        for sibling in self.pools[self.replicas[slot].pool].ready where sibling != slot {
            guard let other = self.replicas[sibling].description?.weightType, other != own else { continue }
            return "it keeps weights in \(own.rawValue), but \(self.replicas[sibling].id.address) of the same pool in "
                + "\(other.rawValue), so answers would depend on the replica: start it with the same type "
                + "(--dtype, or a shard that is packed in it), or allow mixed types (--mixed-weight-types)"
        }
        return nil
    }

    private func objectionToExperts(of description: ReplicaDescription, from slot: Int) -> String? {
        let name = self.replicas[slot].id.pool
        if !self.learnsPlacement {
            return self.missingExperts(of: description, in: name)
        }
        guard description.experts.contains(where: { !$0.value.isEmpty }) else { return "it holds no experts" }
        // Alone it may teach its pool another placement; with other ready replicas it must match theirs.
        guard self.pools[self.replicas[slot].pool].ready.contains(where: { $0 != slot }) else { return nil }
        return self.missingExperts(of: description, in: name)
    }

    private func missingExperts(of description: ReplicaDescription, in pool: String) -> String? {
        for (layer, experts) in self.placement.experts(of: pool).sorted(by: { $0.key < $1.key }) {
            let missing = experts.subtracting(description.experts[layer] ?? [])
            guard missing.isEmpty else {
                let list = missing.sorted().map(String.init).joined(separator: ", ")
                return "it lacks experts \(list) of layer \(layer), which the placement puts on \(pool)"
            }
        }
        return nil
    }
}
