// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// Which pools hold each expert: its own, which the placement names, and others that hold it as a spare.
///
/// A hot expert may be placed on additional pools, whose hosts then share its rows with its own pool.
public struct PlacementTable: Sendable, Equatable {
    /// With fewer rows, it is not worth having one more host read an expert's weights.
    static let rowsWorthDividing = 2 * ExpertWork.rowsPerRead

    private var names: [String] = []
    /// For each layer, by expert index, which of ``names`` holds it; -1 for none.
    private var own: [SparseLayer: [Int32]] = [:]
    /// Additional pools of some experts, by name.
    public private(set) var extras: [SparseLayer: [Int: [String]]] = [:]

    /// Creates a table that places nothing.
    public init() {}

    /// Sets the pool that holds an expert; the last call wins.
    ///
    /// - Parameters:
    ///   - expert: Index of the expert; at least 0.
    ///   - layer: Its layer.
    ///   - pool: Name of the pool.
    public mutating func place(_ expert: Int, of layer: SparseLayer, on pool: String) {
        let index = self.index(of: pool)
        var row = self.own[layer] ?? []
        if row.count <= expert { row.append(contentsOf: [Int32](repeating: -1, count: expert + 1 - row.count)) }
        row[expert] = index
        self.own[layer] = row
    }

    /// Forgets everything that a pool holds as its own.
    ///
    /// - Parameter pool: Name of the pool.
    public mutating func removeAll(of pool: String) {
        let index = self.index(of: pool)
        self.own = self.own.mapValues { $0.map { $0 == index ? -1 : $0 } }
    }

    /// Places experts on additional pools, replacing earlier extra placements.
    ///
    /// - Parameter extras: Names of pools, by layer and expert.
    public mutating func setExtras(_ extras: [SparseLayer: [Int: [String]]]) {
        self.extras = extras.mapValues { $0.filter { !$0.value.isEmpty } }.filter { !$0.value.isEmpty }
    }

    /// The experts of other pools that are also placed on a pool.
    ///
    /// - Parameter pool: Name of the pool.
    /// - Returns: Indices by layer.
    public func extras(on pool: String) -> [SparseLayer: Set<Int>] {
        self.extras.mapValues { Set($0.filter { $0.value.contains(pool) }.keys) }.filter { !$0.value.isEmpty }
    }

    /// The pool that holds an expert as its own.
    ///
    /// - Parameters:
    ///   - expert: Index of the expert.
    ///   - layer: Its layer.
    /// - Returns: The pool's name, or nil if no pool holds it.
    public func pool(of expert: Int, in layer: SparseLayer) -> String? {
        guard let row = self.own[layer], row.indices.contains(expert), row[expert] >= 0 else { return nil }
        return self.names[Int(row[expert])]
    }

    /// The experts that a pool must hold.
    ///
    /// - Parameter pool: Name of the pool.
    /// - Returns: Indices by layer.
    public func experts(of pool: String) -> [SparseLayer: Set<Int>] {
        guard let index = self.names.firstIndex(of: pool) else { return [:] }
        var result: [SparseLayer: Set<Int>] = [:]
        for (layer, row) in self.own {
            let experts = row.indices.filter { row[$0] == Int32(index) }
            if !experts.isEmpty { result[layer] = Set(experts) }
        }
        return result
    }

    /// The experts of one layer that a pool must hold.
    ///
    /// - Parameters:
    ///   - pool: Name of the pool.
    ///   - layer: The layer.
    /// - Returns: Indices, ascending.
    func experts(of pool: String, in layer: SparseLayer) -> [Int] {
        guard let index = self.names.firstIndex(of: pool), let row = self.own[layer] else { return [] }
        return row.indices.filter { row[$0] == Int32(index) }
    }

    /// The experts of a whole model that no pool holds.
    ///
    /// - Parameters:
    ///   - layers: The model's sparse layers.
    ///   - expertCount: Experts of each.
    /// - Returns: Indices by layer; empty if every expert is placed.
    public func unplaced(layers: [SparseLayer], expertCount: Int) -> [SparseLayer: [Int]] {
        var missing: [SparseLayer: [Int]] = [:]
        for layer in layers {
            let row = self.own[layer] ?? []
            let experts = (0..<expertCount).filter { $0 >= row.count || row[$0] < 0 }
            if !experts.isEmpty { missing[layer] = experts }
        }
        return missing
    }

    /// Splits a layer's grouped rows by pool: one grouped call per pool.
    ///
    /// The rows of an expert on several pools go to the one with the least work per replica (``ExpertWork``: weights to read
    /// rather than rows) or, if there are many, are divided so that these pools end up as equal as possible.
    ///
    /// - Parameters:
    ///   - groups: Expert and row count, in the order of the dispatched rows.
    ///   - layer: The layer.
    ///   - replicas: How many replicas of a pool are ready; an additional pool without any gets nothing.
    /// - Returns: The calls, ordered by the pools' names, and the rows that no pool holds.
    public func assignments(
        of groups: [(expert: Int, rows: Int)],
        in layer: SparseLayer,
        replicas: (String) -> Int = { _ in 1 }
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>]) {
        let own = self.own[layer] ?? []
        let extras = self.extras[layer] ?? [:]
        if extras.isEmpty { return self.ownAssignments(of: groups, own) }
        // Each pool's groups, by its index among the names.
        var parts = [[PoolAssignment.Group]](repeating: [], count: self.names.count)
        var shared: [(group: PoolAssignment.Group, pools: [Int32])] = []
        var unplaced: [Range<Int>] = []
        var row = 0
        for group in groups where group.rows > 0 {
            let rows = row..<(row + group.rows)
            row = rows.upperBound
            let index = own.indices.contains(group.expert) ? own[group.expert] : -1
            let further = extras.isEmpty ? [] : extras[group.expert] ?? []
            let usable =
                further.isEmpty
                ? []
                : further.filter { replicas($0) > 0 }
                    .compactMap { self.names.firstIndex(of: $0).map { Int32($0) } }
            let entry = PoolAssignment.Group(expert: group.expert, rows: rows)
            if usable.isEmpty {
                if index >= 0 { parts[Int(index)].append(entry) } else { unplaced.append(rows) }
            } else if index >= 0, replicas(self.names[Int(index)]) > 0 {
                shared.append((entry, [index] + usable.filter { $0 != index }))
            } else {
                shared.append((entry, usable))
            }
        }
        if !shared.isEmpty {
            self.divide(shared, over: &parts, replicas: replicas)
        }
        var calls: [PoolAssignment] = []
        calls.reserveCapacity(parts.count { !$0.isEmpty })
        for index in parts.indices where !parts[index].isEmpty {
            if !shared.isEmpty { parts[index].sort { $0.rows.lowerBound < $1.rows.lowerBound } }
            calls.append(PoolAssignment(pool: self.names[index], groups: parts[index]))
        }
        calls.sort { $0.pool < $1.pool }
        return (calls, unplaced)
    }

    /// Splits a layer's rows where each expert is on one pool, without a list for each pool that there is.
    private func ownAssignments(
        of groups: [(expert: Int, rows: Int)],
        _ own: [Int32]
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>]) {
        var calls: [PoolAssignment] = []
        calls.reserveCapacity(min(groups.count, self.names.count))
        var unplaced: [Range<Int>] = []
        withUnsafeTemporaryAllocation(of: Int.self, capacity: self.names.count) { places in
            // The call of each pool; -1 where there is none yet.
            places.initialize(repeating: -1)
            var row = 0
            for group in groups where group.rows > 0 {
                let rows = row..<(row + group.rows)
                row = rows.upperBound
                let pool = own.indices.contains(group.expert) ? Int(own[group.expert]) : -1
                guard pool >= 0 else {
                    unplaced.append(rows)
                    continue
                }
                if places[pool] < 0 {
                    places[pool] = calls.count
                    calls.append(PoolAssignment(pool: self.names[pool]))
                }
                calls[places[pool]].groups.append(.init(expert: group.expert, rows: rows))
            }
        }
        if calls.count > 1 { calls.sort { $0.pool < $1.pool } }
        return (calls, unplaced)
    }

    /// Divides the rows of experts on several pools, the largest groups first.
    private func divide(
        _ shared: [(group: PoolAssignment.Group, pools: [Int32])],
        over parts: inout [[PoolAssignment.Group]],
        replicas: (String) -> Int
    ) {
        var loads = parts.map { $0.reduce(0) { $0 + Double(ExpertWork.of(rows: $1.rows.count)) } }
        let hosts = self.names.map { Double(max(1, replicas($0))) }
        func level(_ pool: Int32) -> Double { loads[Int(pool)] / hosts[Int(pool)] }
        let order = shared.sorted { ($1.group.rows.count, $0.group.expert) < ($0.group.rows.count, $1.group.expert) }
        for (group, pools) in order {
            let byLevel = pools.sorted { (level($0), $0) < (level($1), $1) }
            var chosen = byLevel.prefix(1)
            if group.rows.count >= Self.rowsWorthDividing {
                chosen = byLevel.prefix(max(1, group.rows.count * 2 / Self.rowsWorthDividing))
            }
            let shares = Self.shares(of: group.rows.count, over: chosen.map { (level($0), hosts[Int($0)]) })
            var start = group.rows.lowerBound
            for (pool, share) in zip(chosen, shares) where share > 0 {
                parts[Int(pool)].append(.init(expert: group.expert, rows: start..<(start + share)))
                loads[Int(pool)] += Double(ExpertWork.of(rows: share))
                start += share
            }
        }
    }

    /// Fills pools with rows up to one level, as water fills vessels.
    ///
    /// - Parameters:
    ///   - rows: The rows to divide.
    ///   - pools: Rows per replica so far, ascending, and the replicas, of each pool.
    /// - Returns: Rows for each pool; their sum is `rows`.
    static func shares(of rows: Int, over pools: [(level: Double, replicas: Double)]) -> [Int] {
        guard pools.count > 1 else { return pools.map { _ in rows } }
        var level = pools[0].level
        var width = 0.0
        var left = Double(rows)
        for (index, pool) in pools.enumerated() {
            let room = (pool.level - level) * width
            if index > 0, room >= left { break }
            left -= room
            level = pool.level
            width += pool.replicas
        }
        level += left / width
        var shares = pools.map { max(0, Int(((level - $0.level) * $0.replicas).rounded(.down))) }
        // The rounding remainder goes to the first, which had the least.
        shares[0] += rows - shares.reduce(0, +)
        return shares
    }

    private mutating func index(of pool: String) -> Int32 {
        if let known = self.names.firstIndex(of: pool) { return Int32(known) }
        self.names.append(pool)
        return Int32(self.names.count - 1)
    }

    /// Registers a pool that may appear among the extras.
    mutating func know(_ pool: String) { _ = self.index(of: pool) }

    /// Tables are equal if they place the same experts on the same pools, however they were built.
    public static func == (left: PlacementTable, right: PlacementTable) -> Bool {
        guard left.extras == right.extras else { return false }
        return Set(left.own.keys).union(right.own.keys)
            .allSatisfy { layer in
                let count = max(left.own[layer]?.count ?? 0, right.own[layer]?.count ?? 0)
                return (0..<count).allSatisfy { left.pool(of: $0, in: layer) == right.pool(of: $0, in: layer) }
            }
    }
}

/// The part of a layer's dispatched rows that one replica of a pool computes, in one call.
public struct PoolAssignment: Sendable, Hashable {
    /// One expert and its dispatched rows.
    public struct Group: Sendable, Hashable {
        /// Index of the expert.
        public var expert: Int
        /// Its range of the layer's dispatched rows.
        public var rows: Range<Int>

        /// Creates a group.
        ///
        /// - Parameters:
        ///   - expert: Index of the expert.
        ///   - rows: Its range of the layer's dispatched rows.
        public init(expert: Int, rows: Range<Int>) {
            self.expert = expert
            self.rows = rows
        }
    }

    /// Name of the pool.
    public var pool: String
    /// Its groups, in the order of their rows.
    public var groups: [Group]
    /// The slot of the replica that its experts prefer; nil for none.
    var preferredSlot: Int?

    /// Creates an assignment.
    ///
    /// - Parameters:
    ///   - pool: Name of the pool.
    ///   - groups: Its groups, in the order of their rows.
    public init(pool: String, groups: [Group] = []) {
        self.pool = pool
        self.groups = groups
    }

    init(pool: String, groups: [Group], preferredSlot: Int?) {
        self.init(pool: pool, groups: groups)
        self.preferredSlot = preferredSlot
    }

    /// Rows of all groups.
    public var rowCount: Int { self.groups.reduce(0) { $0 + $1.rows.count } }
}
