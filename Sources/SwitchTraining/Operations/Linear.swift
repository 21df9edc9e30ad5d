// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The three products of a linear layer `y = x W^T` without a bias.
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
