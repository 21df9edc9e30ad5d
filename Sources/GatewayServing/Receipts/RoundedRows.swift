// SPDX-License-Identifier: Apache-2.0

internal import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

/// Experts in this process whose rows lose what rows of a type on the wire would lose: inputs before an expert computes,
/// outputs after.
struct RoundedRows: ExpertExecutor {
    let experts: LocalExperts
    let rowType: DType

    func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        Pending(experts: self.experts, rowType: self.rowType, request: request)
    }

    private struct Pending: PendingExperts {
        let experts: LocalExperts
        let rowType: DType
        let request: ExpertLayerRequest

        func wait() throws -> ExpertOutputs {
            let rows = self.request.plan.rowCount
            let count = rows * self.request.hidden.columns
            let wire = Buffer(byteCount: rows * self.request.rowByteCount(as: self.rowType))
            let tokens = FloatMatrix(uninitializedRows: rows, columns: self.request.hidden.columns)
            let outputs = FloatMatrix(uninitializedRows: rows, columns: self.request.hidden.columns)
            self.request.gather(rows: 0..<rows, as: self.rowType, into: wire.start)
            self.rowType.read(wire.start, count: count, into: tokens.pointer)
            try self.experts.forward(
                layer: self.request.layer,
                groups: self.request.plan.groups,
                tokens: tokens.pointer,
                outputs: outputs.pointer
            )
            self.rowType.write(outputs.pointer, count: count, to: wire.start)
            self.rowType.read(wire.start, count: count, into: outputs.pointer)
            return ExpertOutputs(chunks: [.init(rows: 0..<rows, storage: Outputs(matrix: outputs))])
        }

        func cancel() {}
    }

    /// Rows as they would go over the wire.
    private final class Buffer {
        let start: UnsafeMutableRawPointer

        init(byteCount: Int) {
            self.start = .allocate(byteCount: max(byteCount, 1), alignment: 16)
        }

        deinit { self.start.deallocate() }
    }

    private struct Outputs: ExpertOutputStorage {
        let matrix: FloatMatrix

        func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
            body(
                UnsafeRawBufferPointer(
                    start: self.matrix.pointer,
                    count: self.matrix.rows * self.matrix.columns * MemoryLayout<Float>.stride
                )
            )
        }
    }
}
