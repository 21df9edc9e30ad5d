// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Logging
internal import SwitchyardTypes
internal import Synchronization

extension ExpertCluster.State {
    /// Moving averages of the rows of each expert, by layer.
    func rowsPerSecond(now: ContinuousClock.Instant) -> [SparseLayer: [Double]] {
        Dictionary(
            uniqueKeysWithValues: self.expertLoad.countedLayers.map { layer in
                (layer, self.expertLoad.rowsPerSecond(in: layer, now: now))
            }
        )
    }
}

extension ExpertCluster {
    /// Places hot experts on additional pools, and removes them again, until the task is cancelled.
    func replicateHotExperts() async {
        var planner = PlacementPlanner(configuration: self.configuration.planner)
        while !Task.isCancelled {
            try? await Task.sleep(for: self.configuration.planInterval)
            self.replan(&planner, now: .now)
        }
    }

    /// Reviews the loads once, and changes the placement if the planner decides to.
    func replan(_ planner: inout PlacementPlanner, now: ContinuousClock.Instant) {
        let plan = self.state.withLock { state -> PlacementPlan? in
            let snapshot = PlacementSnapshot(
                of: state.pools,
                load: state.expertLoad,
                layers: self.layers,
                expertCount: self.expertCount,
                now: now
            )
            let plan = planner.change(for: snapshot, now: now)
            if let plan {
                state.pools.setExtras(plan.extras)
            }
            return plan
        }
        for change in plan?.changes ?? [] {
            self.logger.info(
                "a hot expert's placement changed",
                metadata: [
                    "layer": "\(change.layer)", "expert": "\(change.expert)",
                    "before": "\(change.before.joined(separator: ","))",
                    "after": "\(change.after.joined(separator: ","))",
                    "reason": "\(change.reasons.map(\.description).joined(separator: "; "))",
                ]
            )
        }
    }
}
