// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The three products of a linear layer `y = x W^T`, and what its bias `b` adds, if it has one: `y = x W^T + b`.
enum Linear {
    /// `y = x W^T`.
    static func forward(
        _ run: PartRun,
        _ weight: Weight,
        _ input: Rows,
        into output: Rows,
        relu: Bool = false
    ) -> MatrixProduct {
        MatrixProduct(
            input.operand,
            MatrixOperand(run.weights.start(weight.index), stride: weight.inputs, isTransposed: true),
            rows: input.count,
            depth: weight.inputs,
            columns: weight.outputs,
            into: output.pointer,
            outputStride: output.stride,
            relu: relu
        )
    }

    /// `y = scale (y + b)`, then relu if it is wanted; nothing for a layer without a bias.
    static func addBias(_ run: PartRun, _ weight: Weight, to output: Rows, scale: Float = 1, relu: Bool = false) {
        guard let bias = weight.bias.map({ run.weights.start($0) }) else { return }
        let columns = output.columns
        run.share(output.count, width: 2 * columns) { range in
            for row in range {
                let target = output.row(row)
                Residual.add(bias, to: target, count: columns)
                if scale != 1 { Residual.scale(target, by: scale, count: columns, into: target) }
                if relu { Activation.relu.apply(target, count: columns, level: run.level) }
            }
        }
    }

    /// `db += sum over rows of dy`, in the step's sums; nothing where it is not wanted.
    static func biasGradient(_ run: PartRun, _ gradients: Gradients, _ weight: Weight, _ outputGradient: Rows) {
        guard let bias = weight.bias, gradients.wanted[bias] else { return }
        run.sums.addColumns(bias, of: outputGradient, pool: run.pool, level: run.level)
    }

    /// `dx = dy W`, or `dx += dy W`.
    static func inputGradient(
        _ run: PartRun,
        _ weight: Weight,
        _ outputGradient: Rows,
        into inputGradient: Rows,
        accumulates: Bool = false
    ) -> MatrixProduct {
        MatrixProduct(
            outputGradient.operand,
            MatrixOperand(run.weights.start(weight.index), stride: weight.inputs),
            rows: outputGradient.count,
            depth: weight.outputs,
            columns: weight.inputs,
            into: inputGradient.pointer,
            outputStride: inputGradient.stride,
            accumulates: accumulates
        )
    }

    /// `dW += dy^T x`: one chain over the rows, which continues from what the gradients hold, or overwrites what an earlier
    /// step left there; nothing where it is not wanted.
    static func weightGradient(
        _ gradients: Gradients,
        _ weight: Weight,
        _ outputGradient: Rows,
        _ input: Rows
    ) -> MatrixProduct {
        let isWanted = gradients.wanted[weight.index]
        let accumulates = !gradients.isLeftOver(weight.index)
        if input.count > 0, isWanted {
            gradients.touched[weight.index] = true
        }
        return MatrixProduct(
            outputGradient.transposed,
            input.operand,
            rows: isWanted ? weight.outputs : 0,
            depth: input.count,
            columns: weight.inputs,
            into: gradients.values.start(weight.index),
            accumulates: accumulates
        )
    }
}
