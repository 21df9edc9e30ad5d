// SPDX-License-Identifier: Apache-2.0

/// A sparse layer as the pools know it: the stack and the block's index.
public struct ExpertLayer: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// Whether the layer is the decoder's.
    public var isDecoder: Bool
    /// Index of the block in its stack.
    public var block: Int

    /// Creates a layer's name.
    ///
    /// - Parameters:
    ///   - isDecoder: Whether the layer is the decoder's.
    ///   - block: Index of the block in its stack.
    public init(isDecoder: Bool, block: Int) {
        self.isDecoder = isDecoder
        self.block = block
    }

    /// `encoder 1`, `decoder 3`.
    public var description: String { "\(self.isDecoder ? "decoder" : "encoder") \(self.block)" }

    /// Orders the encoder's layers before the decoder's, then by block.
    public static func < (left: ExpertLayer, right: ExpertLayer) -> Bool {
        (left.isDecoder ? 1 : 0, left.block) < (right.isDecoder ? 1 : 0, right.block)
    }
}

/// Which pool holds each expert.
public struct PlacementTable: Sendable, Equatable {
    private var pools: [ExpertLayer: [Int: String]] = [:]

    /// Creates a table that places nothing.
    public init() {}

    /// Says that a pool holds an expert; the pool that was named last holds it.
    ///
    /// - Parameters:
    ///   - expert: Index of the expert.
    ///   - layer: Its layer.
    ///   - pool: Name of the pool.
    public mutating func place(_ expert: Int, of layer: ExpertLayer, on pool: String) {
        self.pools[layer, default: [:]][expert] = pool
    }

    /// Forgets everything that a pool holds.
    ///
    /// - Parameter pool: Name of the pool.
    public mutating func removeAll(of pool: String) {
        self.pools = self.pools.mapValues { $0.filter { $0.value != pool } }
    }

    /// The pool that holds an expert.
    ///
    /// - Parameters:
    ///   - expert: Index of the expert.
    ///   - layer: Its layer.
    /// - Returns: The pool's name, or nil where nobody holds it.
    public func pool(of expert: Int, in layer: ExpertLayer) -> String? {
        self.pools[layer]?[expert]
    }

    /// The experts that a pool must hold.
    ///
    /// - Parameter pool: Name of the pool.
    /// - Returns: Indices by layer.
    public func experts(of pool: String) -> [ExpertLayer: Set<Int>] {
        self.pools.mapValues { Set($0.filter { $0.value == pool }.keys) }.filter { !$0.value.isEmpty }
    }

    /// The experts of a whole model that no pool holds.
    ///
    /// - Parameters:
    ///   - layers: The model's sparse layers.
    ///   - expertCount: Experts of each.
    /// - Returns: Indices by layer; empty where everything is placed.
    public func unplaced(layers: [ExpertLayer], expertCount: Int) -> [ExpertLayer: [Int]] {
        var missing: [ExpertLayer: [Int]] = [:]
        for layer in layers {
            let experts = (0..<expertCount).filter { self.pools[layer]?[$0] == nil }
            if !experts.isEmpty { missing[layer] = experts }
        }
        return missing
    }

    /// Splits a layer's grouped rows by pool: one grouped call for each.
    ///
    /// - Parameters:
    ///   - groups: Expert and row count, in the order of the dispatched rows.
    ///   - layer: The layer.
    /// - Returns: The calls, ordered by the pools' names, and the rows that no pool holds.
    public func assignments(
        of groups: [(expert: Int, rows: Int)],
        in layer: ExpertLayer
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>]) {
        var calls: [String: PoolAssignment] = [:]
        var unplaced: [Range<Int>] = []
        var row = 0
        for group in groups where group.rows > 0 {
            let rows = row..<(row + group.rows)
            row = rows.upperBound
            if let pool = self.pools[layer]?[group.expert] {
                calls[pool, default: PoolAssignment(pool: pool)].groups.append(.init(expert: group.expert, rows: rows))
            } else {
                unplaced.append(rows)
            }
        }
        return (calls.values.sorted { $0.pool < $1.pool }, unplaced)
    }
}

/// The part of a layer's dispatched rows that one pool computes, in one call.
public struct PoolAssignment: Sendable, Hashable {
    /// One expert and its dispatched rows.
    public struct Group: Sendable, Hashable {
        /// Index of the expert.
        public var expert: Int
        /// Which of the layer's dispatched rows are its.
        public var rows: Range<Int>

        /// Creates a group.
        ///
        /// - Parameters:
        ///   - expert: Index of the expert.
        ///   - rows: Which of the layer's dispatched rows are its.
        public init(expert: Int, rows: Range<Int>) {
            self.expert = expert
            self.rows = rows
        }
    }

    /// Name of the pool.
    public var pool: String
    /// Its groups, in the order of their rows.
    public var groups: [Group] = []

    /// Rows of all groups.
    public var rowCount: Int { self.groups.reduce(0) { $0 + $1.rows.count } }
}
