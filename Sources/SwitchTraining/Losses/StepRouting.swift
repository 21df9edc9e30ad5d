// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes

/// What one sparse layer's router did with a step's tokens.
struct LayerRouting: Sendable {
    /// Tokens of the step that were sent to each expert, kept or not.
    var sent: [Int]
    /// Tokens of the step whose most probable expert this is.
    var greatest: [Int]
    /// Tokens that their expert took.
    var kept: [Int]
    /// Each expert's probability, added up over the tokens.
    var probabilities: [Double]
    /// `log(sum exp(logits))` squared, added up over the tokens.
    var squares = 0.0
    /// Each token's greatest probability, added up over the tokens.
    var certainty = 0.0
    /// Tokens counted against each expert's capacity so far in the group.
    var counted: [Int]

    init(experts: Int) {
        self.sent = Array(repeating: 0, count: experts)
        self.greatest = self.sent
        self.kept = self.sent
        self.counted = self.sent
        self.probabilities = Array(repeating: 0, count: experts)
    }
}

/// Where a part's tokens go in one layer.
struct RoutePlan {
    /// The expert of each token.
    let choices: [Int32]
    /// The dispatched row of each token; -1 for a dropped one.
    let slots: [Int32]
    /// The token of each dispatched row.
    let sources: [Int32]
    /// The experts with rows, ascending, and their dispatched rows.
    let groups: [(expert: Int, rows: Range<Int>)]
}

/// The routers' part of a step: capacities, which count over all its parts, and the sums that the losses need.
final class StepRouting {
    private let configuration: ModelConfiguration
    private let settings: TrainingSettings
    private let policy: CapacityPolicy
    /// The step, by which draws differ; 0 in evaluation.
    private let step: UInt32
    /// Tokens of the step in each stack.
    private let tokens: [Stack: Int]
    private let given: [SparseLayer: [Int32]]?
    private(set) var layers: [SparseLayer: LayerRouting] = [:]
    /// The step's counts, where a pass over all parts has been made before.
    private var known: [SparseLayer: LayerRouting]?

    init(
        _ configuration: ModelConfiguration,
        settings: TrainingSettings,
        policy: CapacityPolicy,
        batch: TrainingBatch,
        step: UInt32 = 0
    ) {
        self.configuration = configuration
        self.settings = settings
        self.policy = policy
        self.step = step
        self.tokens = [.encoder: batch.inputTokens, .decoder: batch.targetTokens]
        self.given = batch.routes
        self.beginPass()
    }

    /// Forgets the counts, before the parts are gone through again or for the first time.
    func beginPass() {
        for layer in self.configuration.sparseLayers {
            self.layers[layer] = LayerRouting(experts: self.configuration.expertCount)
        }
    }

    /// Keeps the counts of the pass that has ended: the step's losses are known from now on.
    func knowCounts() {
        self.known = self.layers
    }

    /// Decides which tokens their experts take.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - choices: Each token's most probable expert.
    ///   - sequences: The part's rows.
    ///   - firstRow: Rows of the stack in the step before this part's.
    /// - Returns: Where the part's tokens go.
    func plan(_ layer: SparseLayer, choices: [Int32], sequences: SequenceRows, firstRow: Int) -> RoutePlan {
        let experts = self.configuration.expertCount
        var routing = self.layers[layer] ?? LayerRouting(experts: experts)
        defer { self.layers[layer] = routing }
        let limit = self.policy.limit(
            tokens: self.tokens[layer.stack] ?? 0,
            experts: experts,
            checkpoint: self.configuration.checkpointCapacity
        )
        let ranks = self.ranks(layer, choices: choices, given: self.given?[layer], firstRow: firstRow)
        var choices = choices
        var keeps = [Bool](repeating: true, count: choices.count)
        var kept = [Int](repeating: 0, count: experts)
        let given = self.given?[layer]
        for token in choices.indices {
            routing.greatest[Int(choices[token])] += 1
            if let route = given?[firstRow + token] {
                keeps[token] = route >= 0
                if route >= 0 { choices[token] = route }
            } else {
                if limit.perSequence, token == 0 || sequences.sequenceOfRow[token] != sequences.sequenceOfRow[token - 1]
                {
                    for expert in 0..<experts { routing.counted[expert] = 0 }
                }
                routing.counted[Int(choices[token])] += 1
                keeps[token] =
                    ranks.map { $0[token] < limit.tokens } ?? (routing.counted[Int(choices[token])] <= limit.tokens)
            }
            routing.sent[Int(choices[token])] += 1
            if keeps[token] { kept[Int(choices[token])] += 1 }
        }
        for expert in 0..<experts { routing.kept[expert] += kept[expert] }
        return Self.sorted(choices, keeps: keeps, kept: kept)
    }

    /// Adds what losses and reports need of one sequence.
    func add(_ layer: SparseLayer, probabilities: [Double], squares: Double, certainty: Double = 0) {
        for expert in probabilities.indices { self.layers[layer]?.probabilities[expert] += probabilities[expert] }
        self.layers[layer]?.squares += squares
        self.layers[layer]?.certainty += certainty
    }

    /// The rank of each token among those of its expert where the policy draws, nil where tokens take places in their order.
    ///
    /// A draw is among the tokens of a whole step, which is one part: `TrainingStep` makes sure.
    private func ranks(_ layer: SparseLayer, choices: [Int32], given: [Int32]?, firstRow: Int) -> [Int]? {
        guard case .drawn(let seed) = self.policy.order else { return nil }
        let randomness = StepRandomness(seed: self.settings.seed ^ seed, step: self.step)
        let key = randomness.key(RandomSite(kind: .places, stack: layer.stack, block: layer.block))
        return DropOrder.drawn(seed: UInt64(key.0) << 32 | UInt64(key.1))
            .ranks(
                of: choices.indices.map { given == nil ? choices[$0] : nil },
                expertCount: self.configuration.expertCount,
                layer: layer.block
            )
    }

    private static func sorted(_ choices: [Int32], keeps: [Bool], kept: [Int]) -> RoutePlan {
        var groups: [(expert: Int, rows: Range<Int>)] = []
        var next = [Int](repeating: 0, count: kept.count)
        var total = 0
        for expert in kept.indices where kept[expert] > 0 {
            groups.append((expert, total..<total + kept[expert]))
            next[expert] = total
            total += kept[expert]
        }
        var slots = [Int32](repeating: -1, count: choices.count)
        var sources = [Int32](repeating: 0, count: total)
        for token in choices.indices where keeps[token] {
            let expert = Int(choices[token])
            slots[token] = Int32(next[expert])
            sources[next[expert]] = Int32(token)
            next[expert] += 1
        }
        return RoutePlan(choices: choices, slots: slots, sources: sources, groups: groups)
    }
}

// MARK: - Losses

extension StepRouting {
    /// Layers whose tokens are one group of the losses, and how many tokens they have together.
    private func group(of layer: SparseLayer) -> (layers: [SparseLayer], tokens: Double)? {
        let tokens = Double(self.tokens[layer.stack] ?? 0)
        guard tokens > 0 else { return nil }
        guard self.settings.routerLosses == .transformers else { return ([layer], tokens) }
        let step = layer.stack == .encoder ? self.configuration.encoderSparseStep : self.configuration.decoderSparseStep
        guard step > 1 else { return nil }
        let layers = self.configuration.sparseLayers.filter { $0.stack == layer.stack }
        return (layers, tokens * Double(layers.count))
    }

    private func counts(_ routing: LayerRouting) -> [Int] {
        self.settings.routerLosses == .paper ? routing.sent : routing.greatest
    }

    /// The gradient of the losses: that of the balance loss with respect to each expert's probability, the same for all
    /// tokens of a layer, and the factor of `log(sum exp(logits))` in the z-loss's.
    ///
    /// - Returns: Zeros where the layer has no losses.
    func gradients(_ layer: SparseLayer) -> (balance: [Double], z: Double) {
        let experts = self.configuration.expertCount
        guard let group = self.group(of: layer) else { return (Array(repeating: 0, count: experts), 0) }
        var counts = [Int](repeating: 0, count: experts)
        for layer in group.layers {
            guard let routing = (self.known ?? self.layers)[layer] else { continue }
            let own = self.counts(routing)
            for expert in 0..<experts { counts[expert] += own[expert] }
        }
        let factor = self.settings.balance * Double(experts) / (group.tokens * group.tokens)
        return (counts.map { factor * Double($0) }, 2 * self.settings.routerZ / group.tokens)
    }

    /// The losses of the whole step, before their factors.
    func losses() -> (balance: Double, z: Double, groups: Int) {
        var (balance, z, groups) = (0.0, 0.0, 0)
        var done: Set<SparseLayer> = []
        for layer in self.configuration.sparseLayers where !done.contains(layer) {
            guard let group = self.group(of: layer) else { continue }
            done.formUnion(group.layers)
            groups += 1
            let members = group.layers.compactMap { self.layers[$0] }
            for expert in 0..<self.configuration.expertCount {
                let count = members.reduce(0) { $0 + self.counts($1)[expert] }
                let probability = members.reduce(0.0) { $0 + $1.probabilities[expert] }
                balance +=
                    Double(self.configuration.expertCount) * (Double(count) / group.tokens)
                    * (probability / group.tokens)
            }
            z += members.reduce(0.0) { $0 + $1.squares } / group.tokens
        }
        return (balance, z, groups)
    }
}
