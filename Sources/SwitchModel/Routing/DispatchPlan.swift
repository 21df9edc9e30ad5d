// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Consecutive rows that belong to one expert.
public struct ExpertRows: Sendable, Hashable {
    /// The expert's index in its layer.
    public var expert: Int

    /// Number of rows.
    public var rows: Int

    /// Names an expert and its number of rows.
    ///
    /// - Parameters:
    ///   - expert: The expert's index in its layer.
    ///   - rows: Number of rows.
    public init(expert: Int, rows: Int) {
        self.expert = expert
        self.rows = rows
    }
}

/// One sparse layer's tokens, sorted by expert.
///
/// Groups ascend by expert; inside a group the tokens keep their order. Dispatched row `r` is source row `sources[r]`.
public struct DispatchPlan: Sendable, Hashable {
    /// The experts that have rows, ascending.
    public let groups: [ExpertRows]

    /// For each dispatched row, the row of the layer's input it is a copy of.
    public let sources: [Int32]

    /// For each dispatched row, the router's probability, by which the expert's output is multiplied.
    public let combineWeights: [Float]

    /// Rows of the layer's input that found their expert at its capacity, ascending.
    public let droppedForCapacity: [Int32]

    /// Rows of the layer's input that are dropped because a given route says so, ascending, each with its reason.
    let droppedAsGiven: [GivenDrop]

    /// Rows over their expert's capacity, by this plan's count or because a given route says so, each once.
    var overCapacity: [Int32] {
        self.droppedForCapacity + self.droppedAsGiven.lazy.filter { $0.reason == .capacity }.map(\.row)
    }

    /// A row that a given route drops.
    struct GivenDrop: Sendable, Hashable {
        /// The row of the layer's input.
        let row: Int32

        /// Why it was dropped when the route was recorded.
        let reason: DropReason
    }

    /// Number of dispatched rows.
    public var rowCount: Int {
        self.sources.count
    }

    /// Sorts a step's tokens by expert and drops those over capacity.
    ///
    /// A token counts against its expert's capacity whether or not it is kept, in the order of the tokens, as in
    /// transformers (the inclusive cumulative sum of the one-hot choices).
    ///
    /// - Parameters:
    ///   - choices: The expert of each token, each below `expertCount`.
    ///   - probabilities: The router's probability of each token's choice.
    ///   - sequences: The index of the sequence of each token; a sequence's tokens are consecutive.
    ///   - expertCount: Experts in the layer.
    ///   - policy: How the capacity is determined.
    ///   - checkpointCapacity: The checkpoint's integer capacity.
    ///   - layer: A number for the layer, by which layers draw differently where the policy draws.
    public init(
        choices: [Int32],
        probabilities: [Float],
        sequences: [Int32],
        expertCount: Int,
        policy: CapacityPolicy,
        checkpointCapacity: Int,
        layer: Int = 0
    ) {
        self.init(
            choices: choices,
            probabilities: probabilities,
            sequences: sequences,
            given: nil,
            expertCount: expertCount,
            policy: policy,
            checkpointCapacity: checkpointCapacity,
            layer: layer
        )
    }

    /// Sorts a step's tokens by expert and drops those over capacity, except where given routes say what happens to a
    /// token: such tokens are not counted against any capacity.
    init(
        choices: [Int32],
        probabilities: [Float],
        sequences: [Int32],
        given: [GivenRoute?]?,
        expertCount: Int,
        policy: CapacityPolicy,
        checkpointCapacity: Int,
        layer: Int = 0
    ) {
        let limit = policy.limit(tokens: choices.count, experts: expertCount, checkpoint: checkpointCapacity)
        let ranks: [Int]? =
            policy.order == .tokens
            ? nil
            : policy.order.ranks(
                of: choices.enumerated().map { Self.takesPlace(given?[$0]) ? $1 : nil },
                expertCount: expertCount,
                layer: layer
            )
        var seen = [Int](repeating: 0, count: expertCount)
        var kept = [Int](repeating: 0, count: expertCount)
        var keeps = [Bool](repeating: true, count: choices.count)
        var dropped: [Int32] = []
        var droppedAsGiven: [GivenDrop] = []
        for token in choices.indices {
            if limit.perSequence, token > 0, sequences[token] != sequences[token - 1] {
                for expert in 0..<expertCount {
                    seen[expert] = 0
                }
            }
            let expert = Int(choices[token])
            if let route = given?[token] {
                if let reason = route.reason {
                    if Self.takesPlace(route) { seen[expert] += 1 }
                    keeps[token] = false
                    droppedAsGiven.append(GivenDrop(row: Int32(token), reason: reason))
                } else {
                    kept[expert] += 1
                }
                continue
            }
            seen[expert] += 1
            if ranks.map({ $0[token] < limit.tokens }) ?? (seen[expert] <= limit.tokens) {
                kept[expert] += 1
            } else {
                keeps[token] = false
                dropped.append(Int32(token))
            }
        }
        self.droppedForCapacity = dropped
        self.droppedAsGiven = droppedAsGiven
        (self.groups, self.sources, self.combineWeights) = Self.sorted(
            choices,
            probabilities: probabilities,
            keeps: keeps,
            kept: kept
        )
    }

    /// Whether a token takes a place of its expert: not where its route is given, unless a host lost the row after it had taken
    /// its place.
    private static func takesPlace(_ route: GivenRoute?) -> Bool {
        guard let route else { return true }
        return route.expert == nil && route.reason != nil && route.reason != .capacity
    }

    /// Sorts the kept tokens by expert.
    private static func sorted(
        _ choices: [Int32],
        probabilities: [Float],
        keeps: [Bool],
        kept: [Int]
    ) -> (groups: [ExpertRows], sources: [Int32], weights: [Float]) {
        let expertCount = kept.count
        var groups: [ExpertRows] = []
        groups.reserveCapacity(min(expertCount, choices.count))
        var next = [Int](repeating: 0, count: expertCount)
        var total = 0
        for expert in 0..<expertCount where kept[expert] > 0 {
            groups.append(ExpertRows(expert: expert, rows: kept[expert]))
            next[expert] = total
            total += kept[expert]
        }
        var sources = [Int32](repeating: 0, count: total)
        var weights = [Float](repeating: 0, count: total)
        for token in choices.indices where keeps[token] {
            let expert = Int(choices[token])
            sources[next[expert]] = Int32(token)
            weights[next[expert]] = probabilities[token]
            next[expert] += 1
        }
        return (groups, sources, weights)
    }
}
