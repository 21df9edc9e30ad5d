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
            ?? self.objectionToExperts(of: description, from: slot)
    }

    /// Replicas of a pool must give the same answers, bit for bit, or an answer would depend on the replica.
    private func objectionToWeights(of description: ReplicaDescription, from slot: Int) -> String? {
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
