// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The input of a plan: which pools hold which experts, which replicas take calls, and where rows go.
public struct PlacementSnapshot: Sendable, Equatable {
    /// One pool.
    public struct Pool: Sendable, Equatable {
        /// Replicas that take calls.
        public var replicas: Int
        /// Experts of other pools that every one of those replicas holds too.
        public var spare: [SparseLayer: Set<Int>]

        /// Creates a pool.
        ///
        /// - Parameters:
        ///   - replicas: Replicas that take calls.
        ///   - spare: Experts of other pools that every one of those replicas holds too.
        public init(replicas: Int, spare: [SparseLayer: Set<Int>] = [:]) {
            self.replicas = replicas
            self.spare = spare
        }
    }

    /// One sparse layer.
    public struct Layer: Sendable, Equatable {
        /// The pool of each expert, by expert index; nil if no pool holds it.
        public var primary: [String?]
        /// Rows per second, by expert index.
        public var rowsPerSecond: [Double]
        /// Work per second, by expert index: rows, but reading an expert's weights counts as some of them; empty if unknown.
        public var workPerSecond: [Double]
        /// How many rows those averages are based on.
        public var observedRows: Double

        /// Creates a layer.
        ///
        /// - Parameters:
        ///   - primary: The pool of each expert, by expert index.
        ///   - rowsPerSecond: Rows per second, by expert index.
        ///   - workPerSecond: Work per second, by expert index; empty if unknown.
        ///   - observedRows: How many rows those averages are based on.
        public init(
            primary: [String?],
            rowsPerSecond: [Double],
            workPerSecond: [Double] = [],
            observedRows: Double
        ) {
            self.primary = primary
            self.rowsPerSecond = rowsPerSecond
            self.workPerSecond = workPerSecond
            self.observedRows = observedRows
        }
    }

    /// The pools, by name.
    public var pools: [String: Pool]
    /// The sparse layers.
    public var layers: [SparseLayer: Layer]
    /// Additional pools that currently take an expert's rows, by layer and expert.
    public var extras: [SparseLayer: [Int: [String]]]

    /// Creates a snapshot.
    ///
    /// - Parameters:
    ///   - pools: The pools, by name.
    ///   - layers: The sparse layers.
    ///   - extras: Additional pools that currently take an expert's rows, by layer and expert.
    public init(
        pools: [String: Pool] = [:],
        layers: [SparseLayer: Layer] = [:],
        extras: [SparseLayer: [Int: [String]]] = [:]
    ) {
        self.pools = pools
        self.layers = layers
        self.extras = extras
    }

    /// The snapshot of a gateway's pools.
    ///
    /// - Parameters:
    ///   - pools: The pools.
    ///   - load: The experts' averages.
    ///   - layers: The model's sparse layers.
    ///   - expertCount: Experts of each.
    ///   - now: The current time.
    public init(
        of pools: ExpertPools,
        load: ExpertLoad,
        layers: [SparseLayer],
        expertCount: Int,
        now: ContinuousClock.Instant
    ) {
        let placement = pools.placement
        let spare = pools.spareExperts()
        self.init(extras: placement.extras)
        for layer in layers {
            let primary = (0..<expertCount).map { placement.pool(of: $0, in: layer) }
            for name in Set(primary.compactMap { $0 }) where self.pools[name] == nil {
                self.pools[name] = Pool(replicas: pools.readyCount(of: name), spare: spare[name] ?? [:])
            }
            self.layers[layer] = Layer(
                primary: primary,
                rowsPerSecond: load.rowsPerSecond(in: layer, now: now),
                workPerSecond: load.workPerSecond(in: layer, now: now),
                observedRows: load.observedRows(in: layer)
            )
        }
        // Pools that hold no expert as their own may still hold all of them as spares.
        for (name, spare) in spare where self.pools[name] == nil {
            self.pools[name] = Pool(replicas: pools.readyCount(of: name), spare: spare)
        }
    }
}
