// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// What a router keeps for its backward pass.
struct RouterActivations {
    /// `[tokens, d_model]`: what the router saw, jitter included.
    let input: Rows
    /// `[tokens, experts]`.
    let probabilities: Rows
    /// `log(sum exp(logits))` of each token.
    let normalizers: [Double]
}

/// The gating layer of one sparse layer, in float32: `softmax(x W^T (+ b))`.
///
/// The checkpoint's `router_dtype` is not followed: a router that trains keeps float32.
struct TrainingRouter {
    let run: PartRun
    let parameters: SparseParameters
    let sequences: SequenceRows

    private var experts: Int { self.parameters.router.outputs }

    private var jitter: Jitter? {
        Jitter(
            epsilon: self.run.settings.jitter,
            layer: self.parameters.layer,
            randomness: self.run.randomness,
            level: self.run.level
        )
    }

    private func apply(_ jitter: Jitter, _ input: Rows, into output: Rows) {
        self.run.share(input.count, width: 4 * input.columns) { range in
            for row in range {
                let place = self.sequences.place(row)
                jitter.apply(input.row(row), count: input.columns, place: place, into: output.row(row))
            }
        }
    }

    /// Computes the probabilities, and each token's most probable expert, the lowest of several.
    func forward(_ input: Rows) -> (kept: RouterActivations, choices: [Int32]) {
        let run = self.run
        var seen = input
        if let jitter = self.jitter {
            seen = run.exact.rows(input.count, columns: input.columns)
            self.apply(jitter, input, into: seen)
        }
        let probabilities = run.exact.rows(input.count, columns: self.experts)
        run.pool.multiply(
            [Linear.forward(run, self.parameters.router, seen, into: probabilities)],
            level: run.level
        )
        let bias = self.parameters.routerBias.map { run.weights.start($0) }
        var choices = [Int32](repeating: 0, count: input.count)
        var normalizers = [Double](repeating: 0, count: input.count)
        choices.withUnsafeMutableBufferPointer { choices in
            normalizers.withUnsafeMutableBufferPointer { normalizers in
                self.chooseAll(probabilities, bias: bias, choices, normalizers)
            }
        }
        return (RouterActivations(input: seen, probabilities: probabilities, normalizers: normalizers), choices)
    }

    /// Turns logits into probabilities; writes each token's most probable expert and `log(sum exp(logits))`.
    private func chooseAll(
        _ logits: Rows,
        bias: UnsafeMutablePointer<Float>?,
        _ choices: UnsafeMutableBufferPointer<Int32>,
        _ normalizers: UnsafeMutableBufferPointer<Double>
    ) {
        self.run.share(logits.count, width: Self.operations * self.experts) { range in
            for token in range {
                let row = logits.row(token)
                if let bias {
                    for expert in 0..<self.experts { row[expert] += bias[expert] }
                }
                var most = row[0]
                for expert in 0..<self.experts where row[expert] > most { most = row[expert] }
                let largest = ck_softmax(self.run.level.rawValue, row, self.experts)
                normalizers[token] = Double(most) + ck_log(1 / Double(largest))
                var best = 0
                for expert in 0..<self.experts where row[expert] > row[best] { best = expert }
                choices[token] = Int32(best)
            }
        }
    }

    /// What a softmax and a logarithm cost for each expert, in passes over one number.
    private static let operations = 16

    /// Adds to the step's sums what the losses need.
    func record(_ kept: RouterActivations) {
        for range in self.sequences.ranges {
            var sums = [Double](repeating: 0, count: self.experts)
            var squares = 0.0
            var certainty = 0.0
            for token in range {
                let row = kept.probabilities.row(token)
                var most = row[0]
                for expert in 0..<self.experts {
                    sums[expert] += Double(row[expert])
                    most = max(most, row[expert])
                }
                certainty += Double(most)
                squares += kept.normalizers[token] * kept.normalizers[token]
            }
            self.run.routing.add(self.parameters.layer, probabilities: sums, squares: squares, certainty: certainty)
        }
    }

    /// Adds the input's gradient to `inputGradient`.
    ///
    /// - Parameters:
    ///   - kept: What ``forward(_:)`` kept.
    ///   - plan: Where the tokens went.
    ///   - chosenGradients: The gradient of each token's chosen probability.
    ///   - inputGradient: Added to.
    ///   - gradients: Receives the weights' gradient.
    func backward(
        _ kept: RouterActivations,
        plan: RoutePlan,
        chosenGradients: [Double],
        inputGradient: Rows,
        gradients: Gradients
    ) {
        let run = self.run
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let losses = run.routing.gradients(self.parameters.layer)
        let logits = run.arena.rows(kept.input.count, columns: self.experts)
        run.share(kept.input.count, width: Self.operations * self.experts) { range in
            for token in range {
                let probabilities = kept.probabilities.row(token)
                let choice = Int(plan.choices[token])
                func gradient(_ expert: Int) -> Double {
                    losses.balance[expert] + (expert == choice ? chosenGradients[token] : 0)
                }
                var mean = 0.0
                for expert in 0..<self.experts { mean += Double(probabilities[expert]) * gradient(expert) }
                let z = losses.z * kept.normalizers[token]
                for expert in 0..<self.experts {
                    logits.row(token)[expert] = Float(Double(probabilities[expert]) * (gradient(expert) - mean + z))
                }
            }
        }
        let room = run.arena.rows(kept.input.count, columns: kept.input.columns)
        run.pool.multiply(
            [
                Linear.inputGradient(run, self.parameters.router, logits, into: room),
                Linear.weightGradient(gradients, self.parameters.router, logits, kept.input),
            ],
            level: run.level
        )
        if let jitter = self.jitter { self.apply(jitter, room, into: room) }
        run.share(room.count, width: room.columns) { range in
            for row in range {
                Residual.add(room.row(row), to: inputGradient.row(row), count: room.columns)
            }
        }
        guard let bias = self.parameters.routerBias else { return }
        for range in self.sequences.ranges {
            var sums = [Double](repeating: 0, count: self.experts)
            for token in range {
                for expert in 0..<self.experts { sums[expert] += Double(logits.row(token)[expert]) }
            }
            run.sums.addRouterBias(bias, sums, count: self.experts)
        }
    }
}
