// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import TensorKernels

/// Packs experts for `CheckpointSharder`, in the form in which `LocalExperts` uses them where their file is mapped.
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
    public var layout: PackedLayout { .own }

    /// What packing a matrix will give.
    ///
    /// - Parameters:
    ///   - dtype: The type that the matrix has in the checkpoint.
    ///   - rows: Rows of the matrix.
    ///   - columns: Columns of the matrix.
    /// - Returns: The type of the packed elements and the number of bytes.
    public func form(of dtype: TensorDType, rows: Int, columns: Int) -> (dtype: TensorDType, byteCount: Int) {
        let packed = self.storage.packedDType(for: ElementType(dtype) ?? .float32)
        let count = PackedMatrix.storedByteCount(outputs: rows, inputs: columns, dtype: packed)
        return (packed.tensorType, count ?? 0)
    }

    /// Packs a matrix.
    ///
    /// - Parameter matrix: `[rows, columns]` in F32, BF16 or F16.
    /// - Returns: The packed elements.
    public func pack(_ matrix: TensorView) -> PackedBytes {
        let type = ElementType(matrix.dtype) ?? .float32
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
        return PackedBytes(packed.stored, owner: packed)
    }
}

extension ElementType {
    /// The kernels' name of a weight's type; nil for types that no weight has.
    init?(_ type: TensorDType) {
        switch type {
        case .float32: self = .float32
        case .bfloat16: self = .bfloat16
        case .float16: self = .float16
        default: return nil
        }
    }
}
