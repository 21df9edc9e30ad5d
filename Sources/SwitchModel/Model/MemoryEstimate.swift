// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// The memory that a model's weights take in the processes of a cluster, in bytes.
///
/// Counted from the configuration by the layouts that loading uses, so it is exact for weights. Keys and values of
/// running sequences, buffers and the program itself come on top.
public struct MemoryEstimate: Sendable, Equatable {
    /// What the gateway keeps: packed matrices, norms, biases, and the embeddings, which stay in the mapped file.
    public var gateway = 0

    /// What the hosts of each expert pool keep, by pool.
    public var pools: [Int] = []

    /// Counts a model's weights.
    ///
    /// - Parameters:
    ///   - checkpoint: The whole checkpoint; only headers are read.
    ///   - storage: How the weights are kept.
    ///   - pools: How many pools the experts are cut into; 1 through the number of experts.
    /// - Throws: `CheckpointError` for a tensor that is missing or malformed.
    public init(_ checkpoint: Checkpoint, storage: WeightStorage, pools: Int) throws(CheckpointError) {
        let model = checkpoint.configuration
        for role in model.gatewayRoles {
            let tensor = try checkpoint.tensor(role)
            switch role {
            case .sharedEmbedding:
                self.gateway += tensor.byteCount
                if model.tiedEmbeddings { self.gateway += Self.head(tensor, storage) }
            case .lmHead:
                self.gateway += Self.head(tensor, storage)
            case .router:
                self.gateway += Self.packed(tensor, as: .float32)
            case .attention, .dense:
                self.gateway += Self.packed(tensor, as: storage.packedDType(for: tensor.dtype))
            default:
                self.gateway += tensor.elementCount * MemoryLayout<Float>.stride
            }
        }
        guard !model.sparseLayers.isEmpty, pools > 0 else { return }
        self.pools = Array(repeating: 0, count: pools)
        for layer in model.sparseLayers {
            for expert in 0..<model.expertCount {
                // The same cut as `CheckpointSharder` makes.
                let pool = expert * pools / model.expertCount
                for role in model.expertRoles(layer, expert: expert) where model.has(role) {
                    let tensor = try checkpoint.tensor(role)
                    self.pools[pool] += Self.packed(tensor, as: storage.packedDType(for: tensor.dtype))
                }
            }
        }
    }

    /// The largest process.
    public var largest: Int { max(self.gateway, self.pools.max() ?? 0) }

    private static func packed(_ tensor: TensorView, as dtype: DType) -> Int {
        guard tensor.shape.count == 2 else { return tensor.elementCount * MemoryLayout<Float>.stride }
        return PackedLayout(outputs: tensor.shape[0], inputs: tensor.shape[1], dtype: dtype)?.byteCount ?? 0
    }

    /// The projection onto the vocabulary, and the int8 copy that screens its products.
    private static func head(_ tensor: TensorView, _ storage: WeightStorage) -> Int {
        let dtype = storage.packedDType(for: tensor.dtype)
        let weights = Self.packed(tensor, as: dtype)
        guard dtype != .int8, weights >= WeightLoader.leastScreenedBytes,
            let screen = PackedLayout(outputs: tensor.shape[0], inputs: tensor.shape[1], dtype: .int8)
        else { return weights }
        return weights + screen.byteCount + 2 * tensor.shape[0] * MemoryLayout<Float>.stride
    }
}
