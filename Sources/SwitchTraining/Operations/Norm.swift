// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import TensorKernels

/// The norm of a family, with the sums in float64.
///
/// Root-mean-square normalisation is `y = w x / sqrt(mean(x^2) + epsilon)`. With `r = 1 / sqrt(mean(x^2) + epsilon)`, backward
/// is `dx = r w dy - x r^3 mean(w dy x)` and `dw = sum over rows of dy x r`.
///
/// Layer normalisation is `y = w u + b` with `u = (x - mean(x)) r` and `r = 1 / sqrt(variance(x) + epsilon)`; backward is
/// `dx = r (w dy - mean(w dy) - u mean(w dy u))`, `dw = sum of dy u` and `db = sum of dy`.
///
/// Sums over rows are per sequence over its rows, then over the sequences.
enum Norm {
    static func forward(_ run: PartRun, _ norm: NormParameters, _ input: Rows, into output: Rows) {
        let weights = run.weights.start(norm.weight)
        let bias = norm.bias.map { run.weights.start($0) }
        let epsilon = run.configuration.layerNormEpsilon
        let (level, columns) = (run.level.rawValue, input.columns)
        run.share(input.count, width: columns) { range in
            for row in range {
                if let bias {
                    ck_train_layer_norm(level, input.row(row), weights, bias, epsilon, columns, output.row(row))
                } else {
                    ck_train_norm(level, input.row(row), weights, epsilon, columns, output.row(row))
                }
                run.settle(output.row(row), count: columns)
            }
        }
    }

    /// Adds the input's gradient to `inputGradient`, and the weights' to the step's sums.
    static func backward(
        _ run: PartRun,
        _ norm: NormParameters,
        input: Rows,
        outputGradient: Rows,
        sequences: SequenceRows,
        inputGradient: Rows
    ) {
        let weights = run.weights.start(norm.weight)
        let epsilon = run.configuration.layerNormEpsilon
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let (level, columns) = (run.level.rawValue, input.columns)
        let partial = run.arena.zeroDoubles(sequences.count * columns)
        let biases = norm.bias.map { _ in run.arena.zeroDoubles(sequences.count * columns) }
        run.share(sequences.count, width: sequences.longest * columns) { range in
            for sequence in range {
                let sums = partial + sequence * columns
                for row in sequences.ranges[sequence] {
                    let (x, dy, dx) = (input.row(row), outputGradient.row(row), inputGradient.row(row))
                    if let biases {
                        let biasSums = biases + sequence * columns
                        ck_train_layer_norm_backward(level, x, weights, dy, epsilon, columns, dx, sums, biasSums)
                    } else {
                        ck_train_norm_backward(level, x, weights, dy, epsilon, columns, dx, sums)
                    }
                    run.settle(dx, count: columns)
                }
            }
        }
        for sequence in 0..<sequences.count {
            run.sums.addNorm(norm.weight, partial + sequence * columns, count: columns)
            if let bias = norm.bias, let biases {
                run.sums.addNorm(bias, biases + sequence * columns, count: columns)
            }
        }
    }
}
