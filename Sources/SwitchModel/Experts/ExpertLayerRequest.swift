// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes
public import TensorKernels

/// One sparse layer's work for an executor.
public struct ExpertLayerRequest: Sendable {
    /// The layer.
    public let layer: SparseLayer

    /// The tokens, sorted by expert; at least one row.
    public let plan: DispatchPlan

    /// The layer's normalised input, `[tokens, d_model]`.
    public let hidden: FloatMatrix

    /// For each row of `hidden`, the index of its sequence in the call's inputs.
    public let sequences: [Int32]

    /// What the executor keeps from layer to layer; nil where there is nowhere to keep anything.
    public let memory: ExecutorMemory?

    /// Describes a layer's work.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - plan: The tokens, sorted by expert.
    ///   - hidden: The layer's normalised input, `[tokens, d_model]`.
    ///   - sequences: For each row of `hidden`, the index of its sequence.
    ///   - memory: What the executor keeps from layer to layer.
    public init(
        layer: SparseLayer,
        plan: DispatchPlan,
        hidden: FloatMatrix,
        sequences: [Int32],
        memory: ExecutorMemory? = nil
    ) {
        self.layer = layer
        self.plan = plan
        self.hidden = hidden
        self.sequences = sequences
        self.memory = memory
    }

    /// Bytes of one dispatched row: `d_model` float32 elements.
    public var rowByteCount: Int {
        self.rowByteCount(as: .float32)
    }

    /// Bytes of one dispatched row of `d_model` elements.
    ///
    /// - Parameter type: The elements' type.
    /// - Returns: The bytes that ``gather(rows:as:into:)`` writes for each row.
    public func rowByteCount(as type: DType) -> Int {
        self.hidden.columns * type.byteCount
    }

    /// Copies dispatched rows, row after row.
    ///
    /// - Parameters:
    ///   - rows: Which rows of the plan.
    ///   - type: In which elements to write them.
    ///   - destination: Room for `rows.count * rowByteCount(as: type)` bytes; need not be aligned.
    public func gather(
        rows: Range<Int>,
        as type: DType = .float32,
        into destination: UnsafeMutableRawPointer
    ) {
        precondition(
            rows.lowerBound >= 0 && rows.upperBound <= self.plan.rowCount,
            "rows \(rows) of a plan of \(self.plan.rowCount)"
        )
        var target = destination
        let columns = self.hidden.columns
        for row in rows {
            let source = Int(self.plan.sources[row])
            precondition(source >= 0 && source < self.hidden.rows, "row \(source) of \(self.hidden.rows)")
            type.write(self.hidden.pointer + source * columns, count: columns, to: target)
            target += self.rowByteCount(as: type)
        }
    }
}
