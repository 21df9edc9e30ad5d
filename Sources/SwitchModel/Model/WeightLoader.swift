// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// Reads a checkpoint's tensors into the forms that the layers compute with, and reports progress.
final class WeightLoader {
    let checkpoint: Checkpoint
    private let pool: WorkPool
    private let storage: WeightStorage
    private let progress: (@Sendable (WorkProgress) -> Void)?
    private var state: WorkProgress
    private var checked: Set<String> = []

    /// Creates a loader.
    ///
    /// - Parameters:
    ///   - checkpoint: Where the tensors come from.
    ///   - pool: Threads that share the packing.
    ///   - storage: How to keep packed weights.
    ///   - label: What is being loaded, for progress.
    ///   - total: Number of tensors to load, for progress.
    ///   - progress: Told after each tensor.
    init(
        checkpoint: Checkpoint,
        pool: WorkPool,
        storage: WeightStorage,
        label: String,
        total: Int,
        progress: (@Sendable (WorkProgress) -> Void)?
    ) {
        self.checkpoint = checkpoint
        self.pool = pool
        self.storage = storage
        self.progress = progress
        self.state = WorkProgress(label: label, completed: 0, total: total, unit: .tensors)
    }

    /// A weight matrix, packed.
    func packed(_ role: TensorRole, storage: WeightStorage? = nil) throws -> PackedMatrix {
        if role.isExpert, self.checkpoint.packing != nil {
            let matrix = try self.mapped(role, as: storage ?? self.storage)
            self.advance()
            return matrix
        }
        let (view, type) = try self.view(role)
        guard view.shape.count == 2, view.shape[0] > 0, view.shape[1] > 0 else {
            throw self.wrongShape(view, "a matrix")
        }
        let dtype = (storage ?? self.storage).packedDType(for: type)
        guard view.shape[1] <= dtype.mostInputs else {
            throw ModelError(
                code: .unsupported,
                message:
                    "\(self.checkpoint.directory): tensor \(view.name) has \(view.shape[1]) columns, but \(dtype) sums hold"
                    + " \(dtype.mostInputs) at most; keep the weights as bfloat16 or float32"
            )
        }
        let matrix = view.withUnsafeBytes { bytes in
            PackedMatrix(
                packing: bytes,
                as: type,
                outputs: view.shape[0],
                inputs: view.shape[1],
                dtype: dtype,
                pool: self.pool
            )
        }
        self.advance()
        return matrix
    }

    /// Smallest weight matrix, in bytes, for which a screen is worth its memory; smaller ones stay in a cache anyway.
    static let leastScreenedBytes = 1 << 18

    /// An int8 copy that screens the products of a matrix.
    ///
    /// - Parameters:
    ///   - role: The tensor that the matrix was packed from.
    ///   - matrix: The matrix.
    /// - Returns: The screen; nil for a small matrix, or one with int8 weights.
    /// - Throws: `CheckpointError` for a tensor that is missing or malformed.
    func screen(_ role: TensorRole, for matrix: PackedMatrix) throws -> ProductScreen? {
        guard matrix.dtype != .int8, matrix.byteCount >= WeightLoader.leastScreenedBytes,
            matrix.inputs <= DType.int8.mostInputs
        else {
            return nil
        }
        let (view, type) = try self.view(role)
        return view.withUnsafeBytes { ProductScreen(of: $0, as: type, weights: matrix, pool: self.pool) }
    }

    /// A vector or matrix as float32; a vector becomes a matrix of one row.
    func floats(_ role: TensorRole) throws -> FloatMatrix {
        let (view, type) = try self.view(role)
        guard let columns = view.shape.last, view.shape.count <= 2 else {
            throw self.wrongShape(view, "a vector or a matrix")
        }
        let rows = view.shape.count == 2 ? view.shape[0] : 1
        let matrix = FloatMatrix(rows: rows, columns: columns)
        view.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress {
                type.read(base, count: rows * columns, into: matrix.pointer)
            }
        }
        self.advance()
        return matrix
    }

    /// The matrices of a feed-forward network, and their biases where the family has them.
    ///
    /// - Parameters:
    ///   - configuration: The model's configuration.
    ///   - role: What the network's matrices are.
    /// - Returns: The network.
    /// - Throws: `CheckpointError` for a tensor that is missing or malformed.
    func network(
        _ configuration: ModelConfiguration,
        _ role: (FeedForwardMatrix) -> TensorRole
    ) throws -> FeedForwardWeights {
        let isGated = configuration.gatedFeedForward
        var biases: FeedForwardWeights.Biases?
        if configuration.design.hasBiases {
            biases = try FeedForwardWeights.Biases(isGated: isGated) { matrix in
                RowBias(values: try self.floats(.bias(of: role(matrix))))
            }
        }
        return try FeedForwardWeights(isGated: isGated, biases: biases) { try self.packed(role($0)) }
    }

    /// A tensor whose rows are read one at a time, straight from its file.
    func table(_ role: TensorRole) throws -> EmbeddingTable {
        let (view, type) = try self.view(role)
        guard view.shape.count == 2 else {
            throw self.wrongShape(view, "a matrix")
        }
        self.advance()
        return EmbeddingTable(view: view, type: type, rows: view.shape[0], columns: view.shape[1])
    }

    private func view(_ role: TensorRole) throws -> (TensorView, DType) {
        let view = try self.checkpoint.tensor(role)
        // The embedding is read several times.
        if self.checked.insert(view.name).inserted { try view.requireFinite(in: self.checkpoint.origin) }
        guard view.dtype.isWeight else {
            throw ModelError(
                code: .unsupported,
                message:
                    "\(self.checkpoint.directory): tensor \(view.name) is \(view.dtype.safetensorsName); weights must be F64, F32,"
                    + " BF16 or F16: convert the checkpoint"
            )
        }
        return (view, view.dtype)
    }

    private func wrongShape(_ view: TensorView, _ wanted: String) -> ModelError {
        ModelError(
            code: .unsupported,
            message:
                "\(self.checkpoint.directory): tensor \(view.name) has shape \(view.shape) where \(wanted) is needed;"
                + " fetch the checkpoint again"
        )
    }

    private func advance() {
        self.state.completed += 1
        self.progress?(self.state)
    }
}

/// One embedding per token, read from the checkpoint's own memory.
struct EmbeddingTable: Sendable {
    let view: TensorView
    let type: DType
    let rows: Int
    let columns: Int

    /// Looks tokens up.
    ///
    /// - Parameter tokens: Ids, each below `rows`.
    /// - Returns: `[tokens, columns]`.
    func callAsFunction(_ tokens: [Int32]) -> FloatMatrix {
        let output = FloatMatrix.temporary(rows: tokens.count, columns: self.columns)
        let stride = self.columns * self.type.byteCount
        self.view.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else {
                return
            }
            for (index, token) in tokens.enumerated() {
                self.type.read(
                    base + Int(token) * stride,
                    count: self.columns,
                    into: output.pointer + index * self.columns
                )
            }
        }
        return output
    }
}
