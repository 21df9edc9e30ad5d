// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Checkpoints
internal import TensorKernels

/// Root-mean-square normalisation, `y = w x / sqrt(mean(x^2) + epsilon)`, with the sums in float64.
///
/// With `r = 1 / sqrt(mean(x^2) + epsilon)`, backward is `dx = r w dy - x r^3 mean(w dy x)` and `dw = sum over rows of
/// dy x r`: per sequence over its rows, then over the sequences.
enum Norm {
    static func forward(_ run: PartRun, _ index: Int, _ input: Rows, into output: Rows) {
        let weights = run.weights.start(index)
        let epsilon = run.configuration.layerNormEpsilon
        run.share(input.count, width: input.columns) { range in
            for row in range {
                ck_train_norm(run.level.rawValue, input.row(row), weights, epsilon, input.columns, output.row(row))
                run.settle(output.row(row), count: input.columns)
            }
        }
    }

    /// Adds the input's gradient to `inputGradient`, and the weights' to the step's sums.
    static func backward(
        _ run: PartRun,
        _ index: Int,
        input: Rows,
        outputGradient: Rows,
        sequences: SequenceRows,
        inputGradient: Rows
    ) {
        let weights = run.weights.start(index)
        let epsilon = run.configuration.layerNormEpsilon
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let columns = input.columns
        let partial = run.arena.zeroDoubles(sequences.count * columns)
        run.share(sequences.count, width: sequences.longest * columns) { range in
            for sequence in range {
                for row in sequences.ranges[sequence] {
                    ck_train_norm_backward(
                        run.level.rawValue,
                        input.row(row),
                        weights,
                        outputGradient.row(row),
                        epsilon,
                        columns,
                        inputGradient.row(row),
                        partial + sequence * columns
                    )
                    run.settle(inputGradient.row(row), count: columns)
                }
            }
        }
        for sequence in 0..<sequences.count {
            run.sums.addNorm(index, partial + sequence * columns, count: columns)
        }
    }
}
