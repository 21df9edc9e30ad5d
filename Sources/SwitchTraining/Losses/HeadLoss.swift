// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// Sums of a step's losses over target tokens, in float64.
struct TargetLosses: Sendable {
    /// `-log p` of the right answers.
    var crossEntropy = 0.0
    /// The mean over the vocabulary of `-log p`.
    var uniform = 0.0
    /// `log(sum exp(logits))` squared.
    var squares = 0.0
    /// Tokens whose right answer has the greatest logit.
    var correct = 0
    /// Target tokens.
    var tokens = 0
}

/// Output projection and cross-entropy of the decoder's rows, some rows at a time, so that the logits of all are never in
/// memory: each chunk goes forward and back at once.
struct HeadLoss {
    let run: PartRun
    let parameters: ModelParameters

    /// Logits in memory at once.
    private static let mostLogits = 8 << 20

    /// - Parameters:
    ///   - input: The decoder's final rows, changed where the model scales them.
    ///   - targets: The right answer for each row.
    ///   - tokens: Target tokens of the whole step, by which the loss is divided.
    ///   - gradient: Receives the input's gradient; nil where only losses are wanted.
    ///   - total: The step's losses, one chain over its rows, which goes on with these.
    func callAsFunction(
        _ input: Rows,
        targets: [Int32],
        tokens: Int,
        gradient: Rows?,
        addingTo total: inout TargetLosses
    ) {
        let run = self.run
        let head = self.parameters.head
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let isScaled = run.configuration.scalesDecoderOutputs
        let scale = Float(1 / Double(head.inputs).squareRoot())
        if isScaled {
            self.scale(input, by: scale)
            run.settle(input)
        }
        let chunk = min(input.count, max(Self.mostLogits / head.outputs, 64))
        let logits = run.arena.rows(chunk, columns: head.outputs)
        let losses = run.arena.zeroDoubles(4 * chunk)
        for start in Swift.stride(from: 0, to: input.count, by: chunk) {
            let rows = input.slice(start..<min(start + chunk, input.count))
            let scores = logits.slice(0..<rows.count)
            run.pool.multiply([Linear.forward(run, head, rows, into: scores)], level: run.level)
            self.losses(scores, targets[start...], weight: 1 / Double(tokens), gradient: gradient != nil, losses)
            for row in 0..<rows.count {
                total.crossEntropy += losses[4 * row]
                total.uniform += losses[4 * row + 1]
                total.squares += losses[4 * row + 2]
                total.correct += losses[4 * row + 3] > 0 ? 1 : 0
            }
            total.tokens += rows.count
            guard let gradient, let gradients = run.gradients else { continue }
            run.pool.multiply(
                [
                    Linear.inputGradient(run, head, scores, into: gradient.slice(start..<start + rows.count)),
                    Linear.weightGradient(gradients, head, scores, rows),
                ],
                level: run.level
            )
        }
        if isScaled, let gradient { self.scale(gradient, by: scale) }
        run.settle(gradient)
    }

    /// Computes each row's losses, and replaces its logits by their gradients.
    private func losses(
        _ logits: Rows,
        _ targets: ArraySlice<Int32>,
        weight: Double,
        gradient: Bool,
        _ losses: UnsafeMutablePointer<Double>
    ) {
        let run = self.run
        run.share(logits.count, width: 4 * logits.columns) { range in
            for row in range {
                let target = Int(targets[targets.startIndex + row])
                let scores = logits.row(row)
                var isGreatest = true
                if !gradient {
                    let score = scores[target]
                    for token in 0..<logits.columns where scores[token] > score { isGreatest = false }
                }
                ck_cross_entropy(
                    run.level.rawValue,
                    scores,
                    logits.columns,
                    target,
                    Float(run.settings.labelSmoothing),
                    Float(run.settings.softmaxZ),
                    weight,
                    gradient ? 1 : 0,
                    losses + 4 * row
                )
                losses[4 * row + 3] = isGreatest && !gradient ? 1 : 0
            }
        }
    }

    private func scale(_ rows: Rows, by scale: Float) {
        self.run.share(rows.count, width: rows.columns) { range in
            for row in range {
                Residual.scale(rows.row(row), by: scale, count: rows.columns, into: rows.row(row))
            }
        }
    }
}
