// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

extension ExpertShard {
    /// Weights and optimizer state under the names of a save: what a shard's later bits depend on.
    ///
    /// With an adapter these are its own weights, since those that it changes stay as they are.
    ///
    /// The views read the shard's own memory: use them before the next step.
    ///
    /// - Returns: The tensors, in one order; the optimizer's counts of steps have one for each entry of ``layout``.
    /// - Throws: `CheckpointError` where a tensor cannot be described; never for a layout made from a configuration.
    public func state() throws(CheckpointError) -> [TensorView] {
        try self.trained.tensors() + self.optimizer.state()
    }

    /// Bytes of ``stateBytes()``.
    ///
    /// - Returns: Bytes.
    /// - Throws: `CheckpointError` as ``state()``.
    public func stateByteCount() throws(CheckpointError) -> Int {
        try self.state().reduce(0) { $0 + $1.byteCount }
    }

    /// The state as bytes: the tensors of ``state()`` one after the other, little-endian.
    ///
    /// - Returns: The bytes.
    /// - Throws: `CheckpointError` as ``state()``.
    public func stateBytes() throws(CheckpointError) -> [UInt8] {
        let tensors = try self.state()
        let count = tensors.reduce(0) { $0 + $1.byteCount }
        return [UInt8](unsafeUninitializedCapacity: count) { target, written in
            for tensor in tensors {
                tensor.withUnsafeBytes { bytes in
                    UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(target)[written...])
                        .copyMemory(from: bytes)
                    written += bytes.count
                }
            }
        }
    }

    /// Takes over what ``stateBytes()`` of a shard with the same plan gave, and forgets gradients.
    ///
    /// - Parameter bytes: The bytes.
    /// - Throws: `CheckpointError` for another number of bytes, or bytes that are no state; the shard is void then.
    public func restore(_ bytes: [UInt8]) throws(CheckpointError) {
        try self.restore(try self.tensors(in: bytes))
    }

    /// The tensors of a state, read from its bytes.
    ///
    /// - Parameter bytes: What ``stateBytes()`` of a shard with the same plan gave.
    /// - Returns: The tensors of ``state()``, which keep copies of the bytes.
    /// - Throws: `CheckpointError` for another number of bytes.
    public func tensors(in bytes: [UInt8]) throws(CheckpointError) -> [TensorView] {
        let tensors = try self.state()
        let expected = tensors.reduce(0) { $0 + $1.byteCount }
        guard bytes.count == expected else {
            throw CheckpointError(
                code: .wrongShape,
                message: "is \(bytes.count) bytes, but must be \(expected); it is another shard's state",
                tensor: "state"
            )
        }
        var views: [TensorView] = []
        var next = 0
        for tensor in tensors {
            let range = next..<next + tensor.byteCount
            next = range.upperBound
            views.append(
                try TensorView(name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, bytes: Array(bytes[range]))
            )
        }
        return views
    }

    /// Takes over tensors under the names of a save, and forgets gradients.
    ///
    /// - Parameter tensors: Those of ``state()``, in its order.
    /// - Throws: `CheckpointError` for tensors that do not fit; the shard is void then.
    func restore(_ tensors: [TensorView]) throws(CheckpointError) {
        let count = self.layout.entries.count
        for (index, tensor) in tensors.prefix(count).enumerated() {
            let target = self.trained[index]
            guard tensor.name == self.layout.entries[index].name, tensor.byteCount == target.count * 4 else {
                throw CheckpointError(
                    code: .wrongShape,
                    message: "is not \(self.layout.entries[index].name) of this shard",
                    tensor: tensor.name
                )
            }
            tensor.withUnsafeBytes { UnsafeMutableRawBufferPointer(target).copyMemory(from: $0) }
        }
        try self.optimizer.restore(Array(tensors.dropFirst(count)))
        self.weightsChanged()
        self.beginStep()
    }

    /// Takes its part of a whole model's weights, or of a whole adapter's, and of the optimizer's state.
    ///
    /// - Parameters:
    ///   - weights: The model's weights, or the adapter's.
    ///   - state: The optimizer's state by name, as of a save of the whole model; empty for an optimizer that has seen nothing.
    ///   - steps: The count of steps of each of the model's entries, by name; empty as above.
    /// - Throws: `CheckpointError` for a tensor that is missing or does not fit.
    public func take(
        from weights: ParameterBuffer,
        state: [String: TensorView],
        steps: [String: Int]
    ) throws(CheckpointError) {
        let places = weights.layout.indicesByName
        for (index, entry) in self.layout.entries.enumerated() {
            guard let place = places[entry.name], weights[place].count == self.trained[index].count else {
                throw CheckpointError(code: .missingTensor, message: "is not in the model", tensor: entry.name)
            }
            _ = self.trained[index].update(from: weights[place])
        }
        if !state.isEmpty {
            var tensors = [try OptimizerState.steps(self.layout.entries.map { steps[$0.name] ?? 0 })]
            for tensor in try self.optimizer.state() where tensor.name != OptimizerState.stepsName {
                guard let found = state[tensor.name] else {
                    throw CheckpointError(
                        code: .missingTensor,
                        message:
                            "is not in the saved state; resume with the optimizer that saved it, or from another save",
                        tensor: tensor.name
                    )
                }
                tensors.append(found)
            }
            try self.optimizer.restore(tensors)
        }
        self.weightsChanged()
        self.beginStep()
    }

    /// Puts its weights among a whole model's, or a whole adapter's.
    ///
    /// - Parameter weights: The model's weights, or the adapter's.
    public func put(into weights: ParameterBuffer) {
        let places = weights.layout.indicesByName
        for (index, entry) in self.layout.entries.enumerated() {
            if let place = places[entry.name], weights[place].count == self.trained[index].count {
                _ = weights[place].update(from: self.trained[index])
            }
        }
    }

    /// A checksum of weights and optimizer state, to find memory that changed by itself.
    ///
    /// - Parameter pool: Threads that share the work.
    /// - Returns: XXH64 of the tensors' own XXH64.
    /// - Throws: `CheckpointError` as ``state()``.
    public func checksum(pool: WorkPool) throws(CheckpointError) -> UInt64 {
        let tensors = try self.state()
        return Self.checksum(tensors.count, pool: pool) { index in tensors[index].withUnsafeBytes { XXHash64.hash($0) }
        }
    }

    /// XXH64 of the tensors' own XXH64.
    ///
    /// - Parameters:
    ///   - count: How many tensors there are.
    ///   - pool: Threads that share the work.
    ///   - sum: The checksum of one.
    /// - Returns: The checksum of all.
    static func checksum(_ count: Int, pool: WorkPool, of sum: @Sendable (Int) -> UInt64) -> UInt64 {
        let sums = [UInt64](unsafeUninitializedCapacity: count) { sums, written in
            // Safety: each thread writes numbers of its own range.
            nonisolated(unsafe) let sums = sums
            pool.run(count) { range in
                for index in range { sums[index] = sum(index) }
            }
            written = count
        }
        return sums.withUnsafeBytes { XXHash64.hash($0) }
    }
}
