// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchyardTypes
public import TensorKernels

/// Packs experts for `CheckpointSharder`, in the form that `LocalExperts` uses straight from the mapped file.
public struct ExpertPacking: MatrixPacking {
    private let storage: WeightStorage
    private let pool: WorkPool

    /// Creates a packer.
    ///
    /// - Parameters:
    ///   - storage: How to keep the weights.
    ///   - pool: Threads that share the packing.
    public init(storage: WeightStorage, pool: WorkPool) {
        self.storage = storage
        self.pool = pool
    }

    /// The form that this build's kernels read.
    public var form: PackedForm { .own }

    /// What packing a matrix would give.
    ///
    /// - Parameters:
    ///   - dtype: The type that the matrix has in the checkpoint.
    ///   - rows: Rows of the matrix.
    ///   - columns: Columns of the matrix.
    /// - Returns: The type of the packed elements and the number of bytes; nil for a matrix that has no packed form.
    public func size(of dtype: DType, rows: Int, columns: Int) -> (dtype: DType, byteCount: Int)? {
        guard dtype.isWeight else { return nil }
        let kept = self.storage.packedDType(for: dtype)
        return PackedLayout(outputs: rows, inputs: columns, dtype: kept).map { (kept, $0.byteCount) }
    }

    /// Packs a matrix.
    ///
    /// - Parameters:
    ///   - matrix: `[rows, columns]` in F32, BF16 or F16, one for which ``size(of:rows:columns:)`` is not nil.
    ///   - body: Gets the packed elements, which are valid until it returns.
    /// - Throws: What the body throws.
    public func pack(
        _ matrix: TensorView,
        _ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> Void
    ) throws(CheckpointError) {
        let type = matrix.dtype
        let packed = matrix.withUnsafeBytes { bytes in
            PackedMatrix(
                packing: bytes,
                as: type,
                outputs: matrix.shape[0],
                inputs: matrix.shape[1],
                dtype: self.storage.packedDType(for: type),
                pool: self.pool
            )
        }
        let outcome = packed.withUnsafeBytes { bytes in
            Result { () throws(CheckpointError) in try body(bytes) }
        }
        try outcome.get()
    }
}
