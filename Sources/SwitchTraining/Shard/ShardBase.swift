// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// The weights below the adapter of a shard, as hosts get them: a checkpoint's tensors of the shard's experts, as float32,
/// one after the other in the model's order.
public struct ShardBase: Sendable {
    /// Bytes of all tensors.
    public let byteCount: Int
    /// XXH64 of the tensors' own XXH64.
    public let checksum: UInt64
    private let checkpoint: Checkpoint
    private let tensors: [(role: TensorRole, bytes: Range<Int>)]

    /// Reads the tensors once, for the checksum.
    ///
    /// - Parameters:
    ///   - checkpoint: The whole checkpoint.
    ///   - plan: The shard.
    /// - Throws: `TrainingError` for a plan that does not fit; `CheckpointError` for a tensor that is missing, malformed or not
    ///   finite, with its file and name.
    public init(_ checkpoint: Checkpoint, plan: ShardPlan) throws {
        try plan.validate(checkpoint.configuration)
        let layout = try ParameterLayout(checkpoint.configuration, experts: plan.held)
        var tensors: [(role: TensorRole, bytes: Range<Int>)] = []
        var (sums, next): ([UInt64], Int) = ([], 0)
        for entry in layout.entries {
            let one = ParameterBuffer(layout: ParameterLayout([ParameterLayout.Tensor(entry)]))
            try one.read(entry.role, of: checkpoint, into: 0)
            sums.append(XXHash64.hash(UnsafeRawBufferPointer(one[0])))
            let count = entry.range.count * MemoryLayout<Float>.stride
            tensors.append((entry.role, next..<next + count))
            next += count
        }
        self.checkpoint = checkpoint
        self.tensors = tensors
        self.byteCount = next
        self.checksum = sums.withUnsafeBytes { XXHash64.hash($0) }
    }

    /// A piece of the weights.
    ///
    /// - Parameters:
    ///   - offset: Where it begins, a multiple of 4.
    ///   - count: Bytes of it at most, a multiple of 4.
    /// - Returns: The bytes, little-endian; none at the end.
    /// - Throws: `CheckpointError` for a tensor that cannot be read.
    public func piece(at offset: Int, upTo count: Int) throws(CheckpointError) -> [UInt8] {
        let size = MemoryLayout<Float>.stride
        precondition(offset % size == 0 && count % size == 0, "half a number")
        let wanted = offset..<min(offset + count, self.byteCount)
        var floats: [Float] = []
        floats.reserveCapacity(max(0, wanted.count) / size)
        for tensor in self.tensors where tensor.bytes.overlaps(wanted) {
            let part = tensor.bytes.clamped(to: wanted)
            let first = (part.lowerBound - tensor.bytes.lowerBound) / size
            let view = try self.checkpoint.tensor(tensor.role)
            let elements = part.count / size
            floats += [Float](unsafeUninitializedCapacity: elements) { target, written in
                view.withUnsafeBytes { bytes in
                    guard let source = bytes.baseAddress, let target = target.baseAddress else { return }
                    view.dtype.read(source + first * view.dtype.byteCount, count: elements, into: target)
                    written = elements
                }
            }
        }
        return floats.withUnsafeBytes { Array($0) }
    }
}
