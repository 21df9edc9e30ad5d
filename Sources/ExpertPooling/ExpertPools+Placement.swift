// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

// Which experts a pool is asked for: those that every ready replica of it holds.
//
// A call goes to any ready replica of a pool, so an expert may be on a pool only if each of them holds it. A placement that
// is given is kept by refusing replicas that lack an expert (`ExpertPools+Verification.swift`). One that is learned takes what
// all ready replicas hold and no other pool has, again whenever a replica joins or leaves. Extra placements of hot experts
// follow the same rule.
extension ExpertPools {
    /// Places experts on additional pools, replacing earlier extra placements.
    ///
    /// Only experts that every ready replica of a pool holds are placed there, now and as replicas come and go.
    ///
    /// - Parameter extras: Names of pools, by layer and expert.
    public mutating func setExtras(_ extras: [SparseLayer: [Int: [String]]]) {
        self.wantedExtras = extras
        self.pruneExtras()
    }

    /// The experts that every ready replica of a pool holds in addition to the pool's own.
    ///
    /// - Returns: Indices by pool and layer; pools without a ready replica are missing.
    public func spareExperts() -> [String: [SparseLayer: Set<Int>]] {
        var result: [String: [SparseLayer: Set<Int>]] = [:]
        for pool in self.pools where !pool.ready.isEmpty {
            let held = self.heldByAll(pool)
            let own = self.table.experts(of: pool.name)
            result[pool.name] = held.reduce(into: [:]) { spare, entry in
                let experts = entry.value.subtracting(own[entry.key] ?? [])
                if !experts.isEmpty { spare[entry.key] = experts }
            }
        }
        return result
    }

    func heldByAll(_ pool: Pool) -> [SparseLayer: Set<Int>] {
        var held: [SparseLayer: Set<Int>]?
        for slot in pool.ready {
            let experts = self.replicas[slot].description?.experts ?? [:]
            held = held.map { all in all.reduce(into: [:]) { $0[$1.key] = $1.value.intersection(experts[$1.key] ?? []) }
            }
            if held == nil { held = experts }
        }
        return held ?? [:]
    }

    mutating func pruneExtras() {
        guard !self.wantedExtras.isEmpty || !self.table.extras.isEmpty else { return }
        let spare = self.spareExperts()
        for name in spare.keys { self.table.know(name) }
        let extras = self.wantedExtras.reduce(into: [SparseLayer: [Int: [String]]]()) { result, entry in
            result[entry.key] = entry.value.mapValues { pools in pools.filter { spare[$0]?[entry.key] != nil } }
            for (expert, pools) in result[entry.key] ?? [:] {
                result[entry.key]?[expert] = pools.filter { spare[$0]?[entry.key]?.contains(expert) == true }
            }
        }
        self.table.setExtras(extras)
    }

    // MARK: - Learning

    /// Places the experts of a replica that has just joined on its pool.
    ///
    /// An expert that another pool already holds stays there. A replica that holds less than its pool did is its only
    /// ready one (``objection(to:from:)``), so the pool's placement is learned again from it, and the experts that it
    /// lacks may be found elsewhere.
    mutating func learnPlacement(from slot: Int, _ description: ReplicaDescription) {
        let pool = self.replicas[slot].pool
        let holdsAll = self.table.experts(of: self.pools[pool].name)
            .allSatisfy { layer, experts in
                experts.isSubset(of: description.experts[layer] ?? [])
            }
        if !holdsAll { self.table.removeAll(of: self.pools[pool].name) }
        self.learnPlacement(of: pool)
        if !holdsAll {
            for other in self.pools.indices.sorted(by: { self.pools[$0].name < self.pools[$1].name })
            where other != pool {
                self.learnPlacement(of: other)
            }
        }
        self.readyVersion += 1
    }

    /// Places what every ready replica of a pool holds, and no other pool, on the pool.
    mutating func learnPlacement(of pool: Int) {
        for (layer, experts) in self.heldByAll(self.pools[pool]) {
            for expert in experts where self.table.pool(of: expert, in: layer) == nil {
                self.table.place(expert, of: layer, on: self.pools[pool].name)
            }
        }
    }
}
