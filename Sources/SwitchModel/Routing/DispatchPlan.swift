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
        // For each expert the rows that took a place, those that are kept, and where the next one goes: one allocation.
        var counts = [Int](repeating: 0, count: 3 * expertCount)
        let (keptAt, nextAt) = (expertCount, 2 * expertCount)
        var dropped: [Int32] = []
        var droppedAsGiven: [GivenDrop] = []
        for token in choices.indices {
            if limit.perSequence, token > 0, sequences[token] != sequences[token - 1] {
                for expert in 0..<expertCount {
                    counts[expert] = 0
                }
            }
            let expert = Int(choices[token])
            if let route = given?[token] {
                if let reason = route.reason {
                    if Self.takesPlace(route) { counts[expert] += 1 }
                    droppedAsGiven.append(GivenDrop(row: Int32(token), reason: reason))
                } else {
                    counts[keptAt + expert] += 1
                }
                continue
            }
            counts[expert] += 1
            if ranks.map({ $0[token] < limit.tokens }) ?? (counts[expert] <= limit.tokens) {
                counts[keptAt + expert] += 1
            } else {
                dropped.append(Int32(token))
            }
        }
        self.droppedForCapacity = dropped
        self.droppedAsGiven = droppedAsGiven
        // The kept tokens, sorted by expert.
        var groups: [ExpertRows] = []
        groups.reserveCapacity(min(expertCount, choices.count))
        var total = 0
        for expert in 0..<expertCount where counts[keptAt + expert] > 0 {
            groups.append(ExpertRows(expert: expert, rows: counts[keptAt + expert]))
            counts[nextAt + expert] = total
            total += counts[keptAt + expert]
        }
        var sources = [Int32](repeating: 0, count: total)
        var weights = [Float](repeating: 0, count: total)
        // Both lists of those that are not kept ascend, as the tokens do.
        var (overAt, givenAt) = (0, 0)
        for token in choices.indices {
            if overAt < dropped.count, dropped[overAt] == token {
                overAt += 1
                continue
            }
            if givenAt < droppedAsGiven.count, droppedAsGiven[givenAt].row == token {
                givenAt += 1
                continue
            }
            let expert = Int(choices[token])
            sources[counts[nextAt + expert]] = Int32(token)
            weights[counts[nextAt + expert]] = probabilities[token]
            counts[nextAt + expert] += 1
        }
        self.groups = groups
        self.sources = sources
        self.combineWeights = weights
    }

    /// Whether a token takes a place of its expert: not where its route is given, unless a host lost the row after it had taken
    /// its place.
    private static func takesPlace(_ route: GivenRoute?) -> Bool {
        guard let route else { return true }
        return route.expert == nil && route.reason != nil && route.reason != .capacity
    }
}
