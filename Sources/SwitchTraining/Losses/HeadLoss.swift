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
    /// How far the softmax is from the teacher's, at the temperature and before its square.
    var divergence = 0.0
    /// Tokens whose right answer has the greatest logit.
    var correct = 0
    /// Target tokens.
    var tokens = 0

    /// Adds a row's losses, as ``HeadLoss`` lays them out.
    fileprivate mutating func add(_ row: UnsafePointer<Double>) {
        self.crossEntropy += row[0]
        self.uniform += row[1]
        self.squares += row[2]
        self.correct += row[3] > 0 ? 1 : 0
        self.divergence += row[4]
        self.tokens += 1
    }
}

/// Output projection and cross-entropy of the decoder's rows, some rows at a time, so that the logits of all are never in
/// memory: each chunk goes forward and back at once.
struct HeadLoss {
    let run: PartRun
    let parameters: ModelParameters

    /// Logits in memory at once.
    private static let mostLogits = 8 << 20

    /// Numbers that a row's losses take.
    private static let numbers = 5

    /// - Parameters:
    ///   - input: The decoder's final rows, changed where the model scales them.
    ///   - targets: The right answer for each row.
    ///   - teacher: The teacher's answer for each row; nil where the data alone counts.
    ///   - tokens: Target tokens of the whole step, by which the loss is divided.
    ///   - gradient: Receives the input's gradient; nil where only losses are wanted.
    ///   - total: The step's losses, one chain over its rows, which goes on with these.
    func callAsFunction(
        _ input: Rows,
        targets: [Int32],
        teacher: TeacherRows? = nil,
        tokens: Int,
        gradient: Rows?,
        addingTo total: inout TargetLosses
    ) {
        let run = self.run
        let head = self.parameters.head
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let teacher = run.settings.teacher == nil ? nil : teacher
        let isScaled = run.configuration.scalesDecoderOutputs
        let scale = Float(1 / Double(head.inputs).squareRoot())
        if isScaled {
            self.scale(input, by: scale)
            run.settle(input)
        }
        let chunk = min(input.count, max(Self.mostLogits / head.outputs, 64))
        let logits = run.arena.rows(chunk, columns: head.outputs)
        let losses = run.arena.zeroDoubles(Self.numbers * chunk)
        // A copy of the logits, and what the kernel needs beside.
        let copies = teacher.map { run.arena.rows(chunk, columns: head.outputs + 2 * $0.mostKept) }
        for start in Swift.stride(from: 0, to: input.count, by: chunk) {
            let rows = input.slice(start..<min(start + chunk, input.count))
            let scores = logits.slice(0..<rows.count)
            run.pool.multiply([Linear.forward(run, head, rows, into: scores)], level: run.level)
            Linear.addBias(run, head, to: scores)
            let part = Part(
                targets: targets[start...],
                teacher: teacher?.slice(start..<start + rows.count),
                copies: copies,
                weight: 1 / Double(tokens),
                hasGradient: gradient != nil
            )
            self.losses(scores, part, losses)
            for row in 0..<rows.count { total.add(losses + Self.numbers * row) }
            guard let gradient, let gradients = run.gradients else { continue }
            Linear.biasGradient(run, gradients, head, scores)
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

    /// What the rows of a chunk have beside their logits.
    private struct Part {
        let targets: ArraySlice<Int32>
        let teacher: TeacherRows?
        /// Room for the teacher's gradients; there where ``teacher`` is.
        let copies: Rows?
        let weight: Double
        let hasGradient: Bool
    }

    /// Computes each row's losses, and replaces its logits by their gradients.
    private func losses(_ logits: Rows, _ part: Part, _ losses: UnsafeMutablePointer<Double>) {
        let run = self.run
        let share = part.teacher == nil ? 0 : run.settings.teacher?.weight ?? 0
        run.share(logits.count, width: 4 * logits.columns) { range in
            for row in range {
                let target = Int(part.targets[part.targets.startIndex + row])
                let scores = logits.row(row)
                let numbers = losses + Self.numbers * row
                var isGreatest = true
                if !part.hasGradient {
                    let score = scores[target]
                    for token in 0..<logits.columns where scores[token] > score { isGreatest = false }
                }
                numbers[4] = self.divergence(scores, row, part) ?? 0
                ck_cross_entropy(
                    run.level.rawValue,
                    scores,
                    logits.columns,
                    target,
                    Float(run.settings.labelSmoothing),
                    Float(run.settings.softmaxZ),
                    (1 - share) * part.weight,
                    part.hasGradient ? 1 : 0,
                    numbers
                )
                if part.hasGradient, part.teacher != nil, let copies = part.copies {
                    Residual.add(copies.row(row), to: scores, count: logits.columns)
                }
                numbers[3] = isGreatest && !part.hasGradient ? 1 : 0
            }
        }
    }

    /// How far a row is from the teacher's answer, whose gradients go to the row's copy.
    private func divergence(_ scores: UnsafePointer<Float>, _ row: Int, _ part: Part) -> Double? {
        guard let teacher = part.teacher, let copies = part.copies, let loss = self.run.settings.teacher else {
            return nil
        }
        let columns = self.parameters.head.outputs
        let copy = copies.row(row)
        copy.update(from: scores, count: columns)
        return teacher.withRow(row) { tokens, logprobs, kept in
            ck_divergence(
                self.run.level.rawValue,
                copy,
                columns,
                tokens,
                logprobs,
                kept,
                Float(1 / loss.temperature),
                loss.weight * loss.temperature * loss.temperature * part.weight,
                part.hasGradient ? 1 : 0,
                copy + columns
            )
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
