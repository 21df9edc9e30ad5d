// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The additional pools for hot experts, and the expected gain.
public struct PlacementPlan: Sendable, Equatable {
    /// Why a pool takes rows of an expert from now on, or no longer does.
    public enum Reason: Sendable, Equatable, CustomStringConvertible {
        /// It takes load off the layer's busiest pool.
        case relieves(pool: String)
        /// Its share has been below the threshold for long enough.
        case cooled(shareBefore: Double, for: Duration)
        /// It has made its pool the busiest for long enough.
        case burden(for: Duration)
        /// Not every ready replica of the pool holds it any more, or no replica is ready.
        case notHeld(pool: String)

        /// The reason in words.
        public var description: String {
            switch self {
            case .relieves(let pool): "relieves \(pool)"
            case .cooled(let share, let time):
                "cooled: had \(Percentage(share)) when it came, less than the threshold for \(time.components.seconds) s"
            case .burden(let time): "has made its pool the busiest for \(time.components.seconds) s"
            case .notHeld(let pool): "\(pool) does not hold it any more"
            }
        }
    }

    /// One expert whose pools change.
    public struct Change: Sendable, Equatable {
        /// The expert's layer.
        public var layer: SparseLayer
        /// Index of the expert.
        public var expert: Int
        /// Its part of the layer's rows.
        public var share: Double
        /// Pools that take its rows now, its own first.
        public var before: [String]
        /// Pools that take them under the plan.
        public var after: [String]
        /// The reasons, one for each pool that is added or removed.
        public var reasons: [Reason]
    }

    /// The plan's effect on one layer.
    ///
    /// Loads are parts of the layer's rows that one replica takes: a layer lasts as long as its busiest replica.
    public struct Layer: Sendable, Equatable {
        /// The layer.
        public var layer: SparseLayer
        /// Whether enough rows were seen to plan it.
        public var isMeasured: Bool
        /// The pool of the busiest replica now.
        public var worstPool: String
        /// Load of the busiest replica now.
        public var worstBefore: Double
        /// The same value under the plan.
        public var worstAfter: Double
        /// The busiest replica's load in multiples of the mean, now.
        public var balanceBefore: Double
        /// The same value under the plan.
        public var balanceAfter: Double
        /// A lower bound for any division of the rows over the pools that hold them.
        public var floor: Double
    }

    /// Additional pools of an expert under the plan, by layer and expert.
    public var extras: [SparseLayer: [Int: [String]]] = [:]
    /// Its effect on each layer, in order.
    public var layers: [Layer] = []
    /// The changes, by layer and expert.
    public var changes: [Change] = []

    /// Whether there is something to change.
    public var isChange: Bool { !self.changes.isEmpty }
}

/// Advice to load another shard, for layers that the shards already loaded cannot improve.
public struct PlacementAdvice: Sendable, Equatable {
    /// Pool whose shard others should load too.
    public var shardOf: String
    /// Pool whose hosts should load it.
    public var hostsOf: String
    /// Load of the busiest replica now, averaged over the layers.
    public var worstBefore: Double
    /// The same once the shard is loaded and the resulting plan is in force.
    public var worstAfter: Double
}

/// A fraction written as a percentage with one decimal.
struct Percentage: CustomStringConvertible {
    let fraction: Double

    init(_ fraction: Double) { self.fraction = fraction }

    var description: String {
        guard self.fraction.isFinite else { return "?" }
        let tenths = Int((self.fraction * 1000).rounded())
        return "\(tenths / 10).\(tenths % 10) %"
    }
}
