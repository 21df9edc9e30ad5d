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
    public private(set) var groups: [ExpertRows] = []

    /// For each dispatched row, the row of the layer's input it is a copy of.
    public private(set) var sources: [Int32] = []

    /// For each dispatched row, the router's probability, by which the expert's output is multiplied.
    public private(set) var combineWeights: [Float] = []

    /// Rows of the layer's input that found their expert at its capacity, ascending.
    public private(set) var droppedForCapacity: [Int32] = []

    /// Rows of the layer's input that are dropped because a given route says so, ascending, each with its reason.
    private(set) var droppedAsGiven: [GivenDrop] = []

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

    /// A plan without rows.
    init() {}

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
        var counts: [Int] = []
        self.sort(
            choices,
            probabilities: probabilities,
            sequences: sequences,
            given: nil,
            expertCount: expertCount,
            limit: policy.limit(tokens: choices.count, experts: expertCount, checkpoint: checkpointCapacity),
            order: policy.order,
            layer: layer,
            counts: &counts
        )
    }

    /// Makes this the plan of a step, in the memory that it has already, where no copy of it is left.
    ///
    /// Given routes say what happens to their tokens, which are not counted against any capacity.
    ///
    /// - Parameters:
    ///   - choices: The expert of each token, each below `expertCount`.
    ///   - probabilities: What each token's output is multiplied by; nil for 1.
    ///   - sequences: The index of the sequence of each token; a sequence's tokens are consecutive.
    ///   - given: The given route of each token, nil where the router chooses; nil where it always does.
    ///   - expertCount: Experts in the layer.
    ///   - limit: How many tokens an expert takes, and whether of each sequence.
    ///   - order: Which tokens of an expert take its places.
    ///   - layer: A number for the layer, by which layers draw differently where the order is drawn.
    ///   - counts: Memory for counts; what it holds does not matter.
    mutating func sort(
        _ choices: [Int32],
        probabilities: [Float]?,
        sequences: [Int32],
        given: [GivenRoute?]?,
        expertCount: Int,
        limit: (tokens: Int, perSequence: Bool),
        order: DropOrder,
        layer: Int,
        counts: inout [Int]
    ) {
        // For each expert the rows that took a place, those that are kept, and where the next one goes.
        counts.refill(3 * expertCount, with: 0)
        let (keptAt, nextAt) = (expertCount, 2 * expertCount)
        let ranks: [Int]? =
            order == .tokens
            ? nil
            : order.ranks(
                of: choices.enumerated().map { Self.takesPlace(given?[$0]) ? $1 : nil },
                expertCount: expertCount,
                layer: layer
            )
        self.droppedForCapacity.removeAll(keepingCapacity: true)
        self.droppedAsGiven.removeAll(keepingCapacity: true)
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
                    self.droppedAsGiven.append(GivenDrop(row: Int32(token), reason: reason))
                } else {
                    counts[keptAt + expert] += 1
                }
                continue
            }
            counts[expert] += 1
            if ranks.map({ $0[token] < limit.tokens }) ?? (counts[expert] <= limit.tokens) {
                counts[keptAt + expert] += 1
            } else {
                self.droppedForCapacity.append(Int32(token))
            }
        }
        self.groups.removeAll(keepingCapacity: true)
        var total = 0
        for expert in 0..<expertCount where counts[keptAt + expert] > 0 {
            self.groups.append(ExpertRows(expert: expert, rows: counts[keptAt + expert]))
            counts[nextAt + expert] = total
            total += counts[keptAt + expert]
        }
        self.sources.refill(total, with: 0)
        self.combineWeights.refill(total, with: 1)
        // Both lists of tokens that are not kept ascend, as the tokens do.
        var (overAt, givenAt) = (0, 0)
        for token in choices.indices {
            if overAt < self.droppedForCapacity.count, Int(self.droppedForCapacity[overAt]) == token {
                overAt += 1
                continue
            }
            if givenAt < self.droppedAsGiven.count, Int(self.droppedAsGiven[givenAt].row) == token {
                givenAt += 1
                continue
            }
            let row = counts[nextAt + Int(choices[token])]
            counts[nextAt + Int(choices[token])] = row + 1
            self.sources[row] = Int32(token)
            if let probabilities { self.combineWeights[row] = probabilities[token] }
        }
    }

    /// Whether a token takes a place of its expert: not where its route is given, unless a host lost the row after it had taken
    /// its place.
    private static func takesPlace(_ route: GivenRoute?) -> Bool {
        guard let route else { return true }
        return route.expert == nil && route.reason != nil && route.reason != .capacity
    }
}

extension Array {
    /// Replaces all elements by a number of equal ones, in the memory that there is where it is enough.
    mutating func refill(_ count: Int, with element: Element) {
        self.removeAll(keepingCapacity: true)
        self.reserveCapacity(count)
        while self.count < count { self.append(element) }
    }
}
