// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchTraining
import SwitchyardTypes
import TensorKernels

@testable import SwitchTraining

/// The whole model and its losses in float64, one line an operation, after transformers' modules; without
/// capacity: dropped tokens are those of the given routes.
final class ReferenceModel {
    let configuration: ModelConfiguration
    let settings: TrainingSettings
    let tape = Tape()
    let parameters: [String: Tape.Value]
    /// Where masks come from; nil for none.
    private let randomness: StepRandomness?
    private var layers: [(layer: SparseLayer, logits: Tape.Value, choices: [Int])] = []

    /// `changes` are added to the tensors of their names.
    init(
        _ configuration: ModelConfiguration,
        settings: TrainingSettings,
        weights: ParameterBuffer,
        step: Int? = nil,
        changes: [String: [Double]] = [:]
    ) {
        self.randomness = step.map { StepRandomness(seed: settings.seed, step: UInt32($0)) }
        self.configuration = configuration
        self.settings = settings
        var parameters: [String: Tape.Value] = [:]
        for (index, entry) in weights.layout.entries.enumerated() {
            let rows = entry.shape.count == 1 ? 1 : entry.shape[0]
            var data = weights[index].map { Double($0) }
            if let change = changes[entry.name] {
                for place in data.indices { data[place] += change[place] }
            }
            parameters[entry.name] = self.tape.leaf(rows, data.count / rows, data)
        }
        self.parameters = parameters
    }

    private func weight(_ role: TensorRole) -> Tape.Value {
        guard let value = self.parameters[self.configuration.name(of: role)] else {
            preconditionFailure("no \(role)")
        }
        return value
    }

    /// Rows multiplied with a mask for each, given its sequence and position.
    private func masked(
        _ x: Tape.Value,
        _ places: [(sequence: Int, position: Int)],
        _ apply: (UnsafeMutablePointer<Float>, Int, (sequence: Int, position: Int)) -> Void
    ) -> Tape.Value {
        var mask: [Double] = []
        for place in places {
            var row = [Float](repeating: 1, count: x.columns)
            apply(&row, x.columns, place)
            mask += row.map { Double($0) }
        }
        return self.tape.multiply(x, self.tape.leaf(x.rows, x.columns, mask))
    }

    private func dropped(
        _ x: Tape.Value,
        _ site: RandomSite,
        _ places: [(sequence: Int, position: Int)],
        rate: Double? = nil,
        head: Int = 0
    ) -> Tape.Value {
        let rate = rate ?? self.settings.dropout
        guard let dropout = Dropout(rate: rate, site: site, randomness: self.randomness, level: .scalar) else {
            return x
        }
        return self.masked(x, places) { dropout.apply($0, count: $1, place: $2, head: head) }
    }

    private static func places(_ sequence: Int, _ count: Int) -> [(sequence: Int, position: Int)] {
        (0..<count).map { (sequence, $0) }
    }

    private func linear(_ x: Tape.Value, _ role: TensorRole) -> Tape.Value {
        self.tape.product(x, self.weight(role), transposed: true)
    }

    private func norm(_ x: Tape.Value, _ role: TensorRole) -> Tape.Value {
        self.tape.norm(x, self.weight(role), epsilon: Double(self.configuration.layerNormEpsilon))
    }

    /// Attention of one sequence.
    private func attention(
        _ queries: Tape.Value,
        _ memory: Tape.Value,
        _ stack: Stack,
        _ block: Int,
        _ kind: AttentionKind,
        sequence: Int
    ) -> Tape.Value {
        let (tape, width) = (self.tape, self.configuration.keyWidth)
        let places = Self.places(sequence, queries.rows)
        let query = self.linear(queries, .attention(stack, block: block, kind, .query))
        let key = self.linear(memory, .attention(stack, block: block, kind, .key))
        let value = self.linear(memory, .attention(stack, block: block, kind, .value))
        let heads = (0..<self.configuration.headCount)
            .map { head in
                let columns = head * width..<(head + 1) * width
                var scores = tape.product(tape.columns(query, columns), tape.columns(key, columns), transposed: true)
                if kind == .selfAttention {
                    scores = tape.add(scores, self.bias(stack, head: head, length: queries.rows))
                }
                let weights = self.dropped(
                    tape.softmax(scores),
                    RandomSite(
                        kind: kind == .selfAttention ? .selfAttentionWeights : .crossAttentionWeights,
                        stack: stack,
                        block: block
                    ),
                    places,
                    head: head
                )
                return tape.product(weights, tape.columns(value, columns))
            }
        let site = RandomSite(
            kind: kind == .selfAttention ? .selfAttention : .crossAttention,
            stack: stack,
            block: block
        )
        return self.dropped(
            self.linear(tape.beside(heads), .attention(stack, block: block, kind, .output)),
            site,
            places
        )
    }

    private func bias(_ stack: Stack, head: Int, length: Int) -> Tape.Value {
        let table = self.weight(.relativeBias(stack))
        var places: [Int] = []
        var mask: [Double] = []
        for query in 0..<length {
            for key in 0..<length {
                let bucket = RelativeBias.bucket(
                    distance: key - query,
                    buckets: self.configuration.relativeBuckets,
                    bidirectional: stack == .encoder,
                    largestDistance: self.configuration.relativeMaxDistance
                )
                places.append(bucket * table.columns + head)
                mask.append(stack == .decoder && key > query ? -.infinity : 0)
            }
        }
        let column = self.tape.elements(table, places)
        // The elements in a row each, laid out as a square.
        let square = self.tape.reshape(column, length, length)
        return self.tape.add(square, self.tape.leaf(length, length, mask))
    }

    private func activated(_ x: Tape.Value) -> Tape.Value {
        let (f, slope) = ReferenceActivations.of(self.configuration.activation)
        return self.tape.map(x, f, slope: slope)
    }

    private func feedForward(
        _ x: Tape.Value,
        _ layer: SparseLayer,
        _ places: [(sequence: Int, position: Int)],
        rate: Double? = nil,
        _ role: (FeedForwardMatrix) -> TensorRole
    ) -> Tape.Value {
        var hidden: Tape.Value
        if self.configuration.gatedFeedForward {
            let gate = self.activated(self.linear(x, role(.wi0)))
            hidden = self.tape.multiply(gate, self.linear(x, role(.wi1)))
        } else {
            hidden = self.activated(self.linear(x, role(.wi)))
        }
        let site = RandomSite(kind: .inner, stack: layer.stack, block: layer.block)
        hidden = self.dropped(hidden, site, places, rate: rate)
        return self.linear(hidden, role(.wo))
    }

    /// Router and experts; a route of -1 drops a token.
    private func sparse(
        _ x: Tape.Value,
        _ layer: SparseLayer,
        _ all: [(sequence: Int, position: Int)],
        routes: [Int32]?
    ) -> Tape.Value {
        let tape = self.tape
        var seen = x
        let epsilon = self.settings.jitter
        if let jitter = Jitter(epsilon: epsilon, layer: layer, randomness: self.randomness, level: .scalar) {
            seen = self.masked(x, all) { jitter.apply($0, count: $1, place: $2, into: $0) }
        }
        var logits = self.linear(seen, .router(layer))
        if self.configuration.routerBias {
            let bias = self.weight(.routerBias(layer))
            logits = tape.add(logits, tape.rows(bias, Array(repeating: 0, count: x.rows)))
        }
        let probabilities = tape.softmax(logits)
        let experts = self.configuration.expertCount
        let greatest = (0..<x.rows)
            .map { row in
                (0..<experts).reduce(0) { probabilities[row, $1] > probabilities[row, $0] ? $1 : $0 }
            }
        let choices = (0..<x.rows)
            .map { row in
                routes.map { $0[row] < 0 ? greatest[row] : Int($0[row]) } ?? greatest[row]
            }
        self.layers.append((layer, logits, choices))
        var output: Tape.Value?
        for expert in 0..<experts {
            let rows = (0..<x.rows).filter { choices[$0] == expert && (routes?[$0] ?? 0) >= 0 }
            guard !rows.isEmpty else { continue }
            let rate = self.settings.expertDropout ?? self.settings.dropout
            let result = self.feedForward(tape.rows(x, rows), layer, rows.map { all[$0] }, rate: rate) {
                .expert(layer, expert: expert, $0)
            }
            var places = Array(repeating: -1, count: x.rows)
            for (index, row) in rows.enumerated() { places[row] = index }
            let spread = tape.rows(result, places)
            output = output.map { tape.add($0, spread) } ?? spread
        }
        var sum = output ?? tape.leaf(x.rows, x.columns, Array(repeating: 0, count: x.data.count))
        if let routes, self.configuration.droppedTokens == .pass {
            sum = tape.add(sum, tape.rows(x, (0..<x.rows).map { routes[$0] < 0 ? $0 : -1 }))
        }
        var chosen = tape.elements(probabilities, choices.enumerated().map { $0.offset * experts + $0.element })
        if !self.configuration.scalesByProbability {
            chosen = tape.multiply(chosen, tape.leaf(chosen.rows, 1, chosen.data.map { 1 / $0 }))
        }
        return tape.columnTimes(sum, chosen)
    }

    /// One stack over all sequences.
    private func stack(
        _ stack: Stack,
        _ sequences: [[Int32]],
        memory: [Tape.Value]?,
        routes: [SparseLayer: [Int32]]?
    ) -> [Tape.Value] {
        let tape = self.tape
        let places = sequences.enumerated().map { Self.places($0.offset, $0.element.count) }
        var rows = zip(sequences, places)
            .map { sequence, places in
                self.dropped(
                    tape.rows(self.weight(.sharedEmbedding), sequence.map(Int.init)),
                    RandomSite(kind: .embedding, stack: stack, block: 0),
                    places
                )
            }
        for block in 0..<self.configuration.blockCount(stack) {
            rows = rows.enumerated()
                .map { index, x in
                    let normed = self.norm(x, .layerNorm(stack, block: block, .selfAttention))
                    var x = tape.add(x, self.attention(normed, normed, stack, block, .selfAttention, sequence: index))
                    if let memory {
                        let normed = self.norm(x, .layerNorm(stack, block: block, .crossAttention))
                        x = tape.add(x, self.attention(normed, memory[index], stack, block, .cross, sequence: index))
                    }
                    return x
                }
            let all = tape.below(rows)
            let normed = self.norm(all, .layerNorm(stack, block: block, .feedForward))
            let layer = SparseLayer(stack: stack, block: block)
            let update =
                self.configuration.isSparse(stack, block: block)
                ? self.sparse(normed, layer, places.flatMap { $0 }, routes: routes?[layer])
                : self.feedForward(normed, layer, places.flatMap { $0 }) { .dense(stack, block: block, $0) }
            let site = RandomSite(kind: .feedForward, stack: stack, block: block)
            let sum = tape.add(all, self.dropped(update, site, places.flatMap { $0 }))
            var start = 0
            rows = sequences.map { sequence in
                defer { start += sequence.count }
                return tape.rows(sum, Array(start..<start + sequence.count))
            }
        }
        return zip(rows, places)
            .map { rows, places in
                self.dropped(
                    self.norm(rows, .finalNorm(stack)),
                    RandomSite(kind: .final, stack: stack, block: 0),
                    places
                )
            }
    }

    /// The loss of a batch.
    func loss(_ batch: TrainingBatch) -> Tape.Value {
        let tape = self.tape
        let start = Int32(self.configuration.decoderStartTokenID)
        let memory = self.stack(.encoder, batch.examples.map(\.input), memory: nil, routes: batch.routes)
        let inputs = batch.examples.map { [start] + $0.target.dropLast() }
        var rows = tape.below(self.stack(.decoder, inputs, memory: memory, routes: batch.routes))
        if self.configuration.scalesDecoderOutputs {
            rows = tape.scale(rows, 1 / Double(self.configuration.modelWidth).squareRoot())
        }
        let logits = self.linear(rows, self.configuration.tiedEmbeddings ? .sharedEmbedding : .lmHead)
        let targets = batch.examples.flatMap(\.target)
        let count = Double(targets.count)
        let normalizers = tape.normalizers(logits)
        let places = targets.enumerated().map { $0.offset * logits.columns + Int($0.element) }
        let smoothing = self.settings.labelSmoothing
        var weights = Array(repeating: -smoothing / Double(logits.columns) / count, count: logits.data.count)
        for place in places { weights[place] -= (1 - smoothing) / count }
        var loss = tape.add(tape.scale(tape.sum(normalizers), 1 / count), tape.sum(logits, weights: weights))
        let squares = tape.sum(tape.multiply(normalizers, normalizers))
        loss = tape.add(loss, tape.scale(squares, self.settings.softmaxZ / count))
        return self.addRouterLosses(self.addTeacher(loss, logits, batch))
    }

    /// The data's loss and the teacher's, each with its share.
    private func addTeacher(_ loss: Tape.Value, _ logits: Tape.Value, _ batch: TrainingBatch) -> Tape.Value {
        guard let teacher = self.settings.teacher else { return loss }
        let tape = self.tape
        let scaled = tape.scale(logits, 1 / teacher.temperature)
        let normalizers = tape.normalizers(scaled)
        let columns = logits.columns
        var weights = Array(repeating: 0.0, count: scaled.data.count)
        var masses: [Double] = []
        var parts: [Tape.Value] = []
        for answer in batch.examples.compactMap(\.teacher) {
            for start in stride(from: 0, to: answer.tokens.count, by: answer.kept) {
                let row = masses.count
                var mass = 0.0
                var constant = 0.0
                for (token, logprob) in zip(answer.tokens, answer.logprobs).dropFirst(start).prefix(answer.kept) {
                    let share = exp(Double(logprob))
                    weights[row * columns + Int(token)] = -share
                    mass += share
                    constant += share * Double(logprob)
                }
                masses.append(mass)
                parts.append(tape.leaf(1, 1, [constant]))
                guard answer.kept < columns, mass < 1 else { continue }
                let named = Set(answer.tokens[start..<start + answer.kept].map { Int($0) })
                let others = (0..<columns).filter { !named.contains($0) }.map { row * columns + $0 }
                let other = tape.normalizers(tape.reshape(tape.elements(scaled, others), 1, others.count))
                let share = 1 - mass
                parts.append(tape.leaf(1, 1, [share * log(share)]))
                parts.append(tape.scale(other, -share))
                masses[row] = 1
            }
        }
        parts += [tape.sum(scaled, weights: weights), tape.sum(normalizers, weights: masses)]
        let square = teacher.temperature * teacher.temperature
        let divergence = tape.scale(tape.sum(tape.below(parts)), teacher.weight * square / Double(masses.count))
        return tape.add(tape.scale(loss, 1 - teacher.weight), divergence)
    }

    private func addRouterLosses(_ loss: Tape.Value) -> Tape.Value {
        let tape = self.tape
        var groups: [[(layer: SparseLayer, logits: Tape.Value, choices: [Int])]] = self.layers.map { [$0] }
        if self.settings.routerLosses == .transformers {
            groups = Stack.allCases.compactMap { stack in
                let step =
                    stack == .encoder ? self.configuration.encoderSparseStep : self.configuration.decoderSparseStep
                let layers = self.layers.filter { $0.layer.stack == stack }
                return step > 1 && !layers.isEmpty ? layers : nil
            }
        }
        var loss = loss
        for group in groups {
            let logits = tape.below(group.map(\.logits))
            let tokens = Double(logits.rows)
            let experts = self.configuration.expertCount
            var shares = [Double](repeating: 0, count: experts)
            for choice in group.flatMap(\.choices) { shares[choice] += 1 / tokens }
            let weights = (0..<logits.data.count).map { shares[$0 % experts] * Double(experts) / tokens }
            let balance = tape.sum(tape.softmax(logits), weights: weights)
            loss = tape.add(loss, tape.scale(balance, self.settings.balance))
            let normalizers = tape.normalizers(logits)
            let z = tape.sum(tape.multiply(normalizers, normalizers))
            loss = tape.add(loss, tape.scale(z, self.settings.routerZ / tokens))
        }
        return loss
    }
}

/// Activations and their derivatives in float64.
enum ReferenceActivations {
    static func of(
        _ activation: ModelConfiguration.Activation
    ) -> (f: (Double) -> Double, slope: (Double) -> Double) {
        func logistic(_ x: Double) -> Double { 1 / (1 + exp(-x)) }
        switch activation {
        case .relu: return ({ max($0, 0) }, { $0 > 0 ? 1 : 0 })
        case .relu6: return ({ min(max($0, 0), 6) }, { $0 > 0 && $0 < 6 ? 1 : 0 })
        case .squaredReLU: return ({ max($0, 0) * max($0, 0) }, { 2 * max($0, 0) })
        case .tanh: return ({ tanh($0) }, { 1 - tanh($0) * tanh($0) })
        case .silu:
            return ({ $0 * logistic($0) }, { logistic($0) * (1 + $0 * (1 - logistic($0))) })
        case .quickGELU:
            return (
                { $0 * logistic(1.702 * $0) },
                { logistic(1.702 * $0) * (1 + 1.702 * $0 * (1 - logistic(1.702 * $0))) }
            )
        case .gelu:
            return (
                { 0.5 * $0 * (1 + erf($0 / 2.squareRoot())) },
                { 0.5 * (1 + erf($0 / 2.squareRoot())) + $0 * exp(-$0 * $0 / 2) / (2 * Double.pi).squareRoot() }
            )
        case .geluTanh:
            let factor = (2 / Double.pi).squareRoot()
            func inner(_ x: Double) -> Double { factor * (x + 0.044715 * x * x * x) }
            return (
                { 0.5 * $0 * (1 + tanh(inner($0))) },
                { x in
                    let t = tanh(inner(x))
                    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * factor * (1 + 3 * 0.044715 * x * x)
                }
            )
        }
    }
}
