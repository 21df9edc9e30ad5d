// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes
public import TensorKernels

extension LocalExperts {
    /// Computes the gradients of rows that went through experts whose weights stay as they are.
    ///
    /// The bits are those of a trainer that has the same weights, and depend on neither the other rows, nor the threads, nor
    /// the machine. Weights are unpacked for each call, a few inputs' at a time: next to the products of many rows that takes
    /// little time, and no memory that stays.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - groups: The experts and their numbers of rows, in the order of the rows.
    ///   - tokens: The rows that ``forward(layer:groups:tokens:outputs:)`` got, `[rows, d_model]` float32.
    ///   - outputGradients: The gradients of the rows' outputs, `[rows, d_model]`.
    ///   - inputGradients: Room for the rows' gradients, `[rows, d_model]`; must overlap neither.
    ///   - pauses: Where to pause; nowhere if omitted.
    /// - Throws: `ExpertError` as `forward` does, and for an expert whose weights are kept in int8; nothing has then been
    ///   computed.
    public func backward(
        layer: SparseLayer,
        groups: [ExpertRows],
        tokens: UnsafePointer<Float>,
        outputGradients: UnsafePointer<Float>,
        inputGradients: UnsafeMutablePointer<Float>,
        pauses: WorkPauses? = nil
    ) throws(ExpertError) {
        let slabs = try self.slabs(of: groups, layer: layer)
        guard slabs.allSatisfy({ $0.allSatisfy { !$0.expert.types.contains(.int8) } }) else {
            throw ExpertError(
                code: .notTrainable,
                message: "the experts of \(layer.stack) block \(layer.block) are kept in int8, through which no exact"
                    + " gradient flows; train with hosts that keep them in float32 or bfloat16"
            )
        }
        var offset = 0
        for slab in slabs {
            FeedForwardGradient(
                parts: slab.map { FeedForwardGradient.Part(weights: $0.expert, rows: $0.rows) },
                modelWidth: self.modelWidth,
                width: self.feedForwardWidth,
                activation: self.activation,
                pool: self.pool,
                pauses: pauses
            )
            .run(
                tokens: tokens + offset,
                outputGradients: outputGradients + offset,
                inputGradients: inputGradients + offset
            )
            offset += slab.reduce(0) { $0 + $1.rows } * self.modelWidth
        }
    }
}

extension LocalExperts: TrainingExperts {
    /// The outputs of rows, ``TrainingExperts/forward(_:groups:tokens:)``.
    public func forward(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix) throws -> FloatMatrix {
        let outputs = FloatMatrix(uninitializedRows: tokens.rows, columns: tokens.columns)
        try self.forward(layer: layer, groups: groups, tokens: tokens.pointer, outputs: outputs.pointer)
        return outputs
    }

    /// The gradients of rows, ``TrainingExperts/backward(_:groups:tokens:outputGradients:)``.
    public func backward(
        _ layer: SparseLayer,
        groups: [ExpertRows],
        tokens: FloatMatrix,
        outputGradients: FloatMatrix
    ) throws -> FloatMatrix {
        let gradients = FloatMatrix(uninitializedRows: tokens.rows, columns: tokens.columns)
        try self.backward(
            layer: layer,
            groups: groups,
            tokens: tokens.pointer,
            outputGradients: outputGradients.pointer,
            inputGradients: gradients.pointer
        )
        return gradients
    }
}
