// SPDX-License-Identifier: Apache-2.0

/// What a plan is made from: who holds what, who takes calls, and where the rows go.
public struct PlacementSnapshot: Sendable, Equatable {
    /// One pool.
    public struct Pool: Sendable, Equatable {
        /// Replicas that take calls.
        public var replicas: Int
        /// Experts of other pools that every one of those replicas holds too.
        public var spare: [ExpertLayer: Set<Int>]

        /// Creates a pool.
        ///
        /// - Parameters:
        ///   - replicas: Replicas that take calls.
        ///   - spare: Experts of other pools that every one of those replicas holds too.
        public init(replicas: Int, spare: [ExpertLayer: Set<Int>] = [:]) {
            self.replicas = replicas
            self.spare = spare
        }
    }

    /// One sparse layer.
    public struct Layer: Sendable, Equatable {
        /// The pool of each expert, by expert index; nil where nobody holds it.
        public var primary: [String?]
        /// Rows in a second, by expert index.
        public var rowsPerSecond: [Double]
        /// How many rows those averages stand on.
        public var observedRows: Double

        /// Creates a layer.
        ///
        /// - Parameters:
        ///   - primary: The pool of each expert, by expert index.
        ///   - rowsPerSecond: Rows in a second, by expert index.
        ///   - observedRows: How many rows those averages stand on.
        public init(primary: [String?], rowsPerSecond: [Double], observedRows: Double) {
            self.primary = primary
            self.rowsPerSecond = rowsPerSecond
            self.observedRows = observedRows
        }
    }

    /// The pools, by name.
    public var pools: [String: Pool]
    /// The sparse layers.
    public var layers: [ExpertLayer: Layer]
    /// Further pools that take rows of an expert now, by layer and expert.
    public var extras: [ExpertLayer: [Int: [String]]]

    /// Creates a snapshot.
    ///
    /// - Parameters:
    ///   - pools: The pools, by name.
    ///   - layers: The sparse layers.
    ///   - extras: Further pools that take rows of an expert now, by layer and expert.
    public init(
        pools: [String: Pool] = [:],
        layers: [ExpertLayer: Layer] = [:],
        extras: [ExpertLayer: [Int: [String]]] = [:]
    ) {
        self.pools = pools
        self.layers = layers
        self.extras = extras
    }

    /// The experts that each of some hosts holds and their pool's placement does not ask for.
    ///
    /// - Parameters:
    ///   - holdings: What each replica of one pool that takes calls holds.
    ///   - placed: What the placement puts on the pool.
    /// - Returns: What all of them hold beyond it; nothing where there are no replicas.
    public static func spare(
        of holdings: [[ExpertLayer: Set<Int>]],
        beyond placed: [ExpertLayer: Set<Int>]
    ) -> [ExpertLayer: Set<Int>] {
        guard var common = holdings.first else { return [:] }
        for held in holdings.dropFirst() {
            common = common.reduce(into: [:]) { $0[$1.key] = $1.value.intersection(held[$1.key] ?? []) }
        }
        return common.reduce(into: [:]) { spare, entry in
            let left = entry.value.subtracting(placed[entry.key] ?? [])
            if !left.isEmpty { spare[entry.key] = left }
        }
    }
}
