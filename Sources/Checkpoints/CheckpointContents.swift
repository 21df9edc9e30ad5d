// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// What a checkpoint's files hold, counted from their headers.
public struct CheckpointContents: Sendable, Equatable {
    /// A number of tensors.
    public struct Total: Sendable, Equatable {
        /// How many tensors.
        public var tensors = 0
        /// Their elements.
        public var parameters = 0
        /// The bytes that they take in the files.
        public var bytes = 0

        mutating func add(_ tensor: StoredTensor) {
            self.tensors += 1
            // A reader has checked every tensor's extent against its file, so the product fits.
            self.parameters += tensor.shape.reduce(1, *)
            self.bytes += TensorView.byteCount(shape: tensor.shape, dtype: tensor.dtype) ?? 0
        }
    }

    /// The names of the weight files, ascending.
    public var files: [String] = []
    /// The model's tensors that are not experts'.
    public var gateway = Total()
    /// The experts' tensors.
    public var experts = Total()
    /// The model's tensors by the type that the files have them in.
    public var types: [DType: Total] = [:]
    /// Tensors in the files that the model does not use, ascending: copies under other names, and what no model has.
    public var unused: [String] = []
}

extension Checkpoint {
    /// What the files hold; nothing but headers is read.
    public var contents: CheckpointContents {
        var contents = CheckpointContents()
        var used: Set<String> = []
        for role in self.configuration.gatewayRoles {
            guard let tensor = try? self.stored(role) else { continue }
            used.insert(tensor.name)
            contents.gateway.add(tensor)
            contents.types[tensor.dtype, default: .init()].add(tensor)
        }
        for (name, tensor) in self.tensors where !used.contains(name) {
            guard let role = self.role(named: name) ?? TensorRole(packedName: name), role.isExpert,
                self.configuration.has(role)
            else {
                contents.unused.append(name)
                continue
            }
            contents.experts.add(tensor)
            contents.types[tensor.dtype, default: .init()].add(tensor)
        }
        contents.unused.sort()
        contents.files = Set(self.tensors.values.map { String($0.file.split(separator: "/").last ?? "") }).sorted()
        return contents
    }
}
