// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import TensorKernels

/// The weights below a shard's adapter, which stay as they are.
extension ExpertShard {
    /// Whether the weights that an adapter changes have not come yet; without an adapter there are none.
    public var needsBase: Bool { self.adapter != nil && !self.hasBase }

    /// Bytes of the weights that an adapter changes, and of all others of its experts: those of a ``ShardBase``.
    ///
    /// 0 without an adapter.
    public var baseByteCount: Int {
        self.adapter == nil ? 0 : self.weights.layout.parameterCount * MemoryLayout<Float>.stride
    }

    /// Takes a piece of the experts' weights: those of ``ShardBase/piece(at:upTo:)``.
    ///
    /// - Parameters:
    ///   - piece: The bytes, a multiple of 4.
    ///   - offset: Where they begin among all of ``baseByteCount``, a multiple of 4; the piece lies within.
    public func putBase(_ piece: [UInt8], at offset: Int) {
        let size = MemoryLayout<Float>.stride
        precondition(offset >= 0 && offset % size == 0 && piece.count % size == 0, "half a number")
        precondition(offset + piece.count <= self.baseByteCount, "a piece beyond the weights")
        self.forgetBase()
        var (start, next) = (0, 0)
        for index in self.weights.layout.entries.indices where next < piece.count {
            let target = UnsafeMutableRawBufferPointer(self.weights[index])
            let place = offset + next - start
            start += target.count
            guard place < target.count else { continue }
            let count = min(piece.count - next, target.count - place)
            piece.withUnsafeBytes { bytes in
                UnsafeMutableRawBufferPointer(rebasing: target[place..<place + count])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[next..<next + count]))
            }
            next += count
        }
    }

    /// Takes the experts' weights from a checkpoint, or from parts of one.
    ///
    /// - Parameters:
    ///   - parts: The parts, not packed.
    ///   - checksum: What ``ShardBase/checksum`` says.
    /// - Throws: `CheckpointError` for an expert that is in none of them, a tensor that cannot be used, or another checksum.
    public func takeBase(from parts: [Checkpoint], checksum: UInt64) throws(CheckpointError) {
        self.forgetBase()
        for (index, entry) in self.weights.layout.entries.enumerated() {
            guard case .expert(let layer, let expert) = entry.kind,
                let part = parts.first(where: { $0.heldExperts[layer]?.contains(expert) == true })
            else {
                throw CheckpointError(
                    code: .missingTensor,
                    message: "is needed, but in none of \(parts.map(\.directory).joined(separator: ", "))",
                    tensor: entry.name
                )
            }
            try self.weights.read(entry.role, of: part, into: index)
        }
        try self.completeBase(checksum: checksum)
    }

    /// Begins to use the experts' weights, once they are all here.
    ///
    /// - Parameter checksum: What ``ShardBase/checksum`` says.
    /// - Throws: `fingerprintMismatch` for another checksum; the weights must come again.
    public func completeBase(checksum: UInt64) throws(CheckpointError) {
        guard let adapter else { return }
        adapter.takeBase(self.weights)
        self.baseSum = self.baseChecksum()
        guard self.baseSum == checksum else {
            self.forgetBase()
            throw CheckpointError(
                code: .fingerprintMismatch,
                message: "holds experts with other weights than the run's checkpoint; bring those of that checkpoint"
            )
        }
        self.hasBase = true
        self.weightsChanged()
    }

    /// Gives up the weights that the adapter changes: they must come again.
    public func forgetBase() {
        self.hasBase = false
        self.weightSum = nil
        self.baseSum = nil
    }

    /// Whether the weights below the adapter, and their sums with its products, are as they were left: to find memory that
    /// changed by itself.
    ///
    /// - Returns: Whether they are; true without an adapter, whose weights are part of ``checksum(pool:)``.
    public func hasSoundWeights() -> Bool {
        guard self.adapter != nil else { return true }
        return self.hasBase && self.baseChecksum() == self.baseSum && self.weightChecksum() == self.weightSum
    }

    /// A checksum of the weights below the adapter, and of those that it leaves alone.
    private func baseChecksum() -> UInt64 {
        let frozen = self.adapter?.base ?? [:]
        return self.checksum(
            self.weights.layout.entries.indices.map { UnsafeRawBufferPointer(frozen[$0] ?? self.weights[$0]) }
        )
    }

    /// A checksum of the weights that a step computes with and that are not below the adapter.
    func weightChecksum() -> UInt64 {
        if let rounded {
            return self.checksum(rounded.layout.entries.indices.map { UnsafeRawBufferPointer(rounded[$0]) })
        }
        let changed = (self.adapter?.base ?? [:]).keys.sorted()
        return self.checksum(changed.map { UnsafeRawBufferPointer(self.weights[$0]) })
    }

    private func checksum(_ tensors: [UnsafeRawBufferPointer]) -> UInt64 {
        // Safety: they are only read, and live as long as the shard.
        nonisolated(unsafe) let tensors = tensors
        return Self.checksum(tensors.count, pool: self.pool) { XXHash64.hash(tensors[$0]) }
    }
}
