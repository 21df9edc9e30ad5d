// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchTraining
internal import SwitchyardTypes

/// The optimizer state of a whole model by name, where its tensors are trained in several places.
struct SavedOptimizer {
    /// The tensor that holds every tensor's count of steps.
    static let stepsName = "optimizer.steps"

    /// The state without the counts of steps.
    var state: [String: TensorView] = [:]
    /// The count of steps of each of the model's tensors.
    var steps: [String: Int] = [:]

    /// The state of an optimizer that has seen nothing.
    init() {}

    /// Reads what a save holds.
    ///
    /// - Parameters:
    ///   - tensors: The saved tensors.
    ///   - layout: The model's tensors.
    /// - Throws: `CheckpointError` for counts of steps that do not fit.
    init(_ tensors: [TensorView], of layout: ParameterLayout) throws(CheckpointError) {
        for tensor in tensors where tensor.name != Self.stepsName { self.state[tensor.name] = tensor }
        guard let counts = tensors.first(where: { $0.name == Self.stepsName }), counts.dtype == .int64,
            counts.shape == [layout.entries.count]
        else {
            throw CheckpointError(
                code: .wrongShape,
                message:
                    "is not there, or not I64 of shape [\(layout.entries.count)]; resume with the model that saved it",
                tensor: Self.stepsName
            )
        }
        self.add(counts, of: layout)
    }

    private mutating func add(_ counts: TensorView, of layout: ParameterLayout) {
        counts.withUnsafeBytes { bytes in
            for (index, entry) in layout.entries.enumerated() where bytes.count >= (index + 1) * 8 {
                let count = Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: index * 8, as: Int64.self))
                self.steps[entry.name] = Int(count)
            }
        }
    }

    private func counts(of layout: ParameterLayout) throws(CheckpointError) -> TensorView {
        var bytes: [UInt8] = []
        for entry in layout.entries {
            withUnsafeBytes(of: Int64(self.steps[entry.name] ?? 0).littleEndian) { bytes.append(contentsOf: $0) }
        }
        return try TensorView(name: Self.stepsName, dtype: .int64, shape: [layout.entries.count], bytes: bytes)
    }

    /// The state of some of the tensors.
    ///
    /// - Parameter layout: The tensors.
    /// - Returns: What an optimizer of that layout restores.
    /// - Throws: `CheckpointError` where a tensor cannot be described.
    func tensors(of layout: ParameterLayout) throws(CheckpointError) -> [TensorView] {
        let names = Set(layout.entries.map(\.name))
        return try [self.counts(of: layout)]
            + self.state.values
            .filter { tensor in
                // optimizer.KIND.NAME
                tensor.name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false).last
                    .map { names.contains(String($0)) } ?? false
            }
    }

    /// Puts together what an optimizer of the whole model would have saved, tensor by tensor in its order.
    ///
    /// - Parameters:
    ///   - own: The state of the tensors that come first.
    ///   - layout: Those tensors.
    ///   - shards: Weights and state of the others, as ``ExpertShard/state()`` gives them.
    ///   - whole: All tensors.
    /// - Returns: The state.
    /// - Throws: `CheckpointError` where a tensor cannot be described.
    static func joined(
        _ own: [TensorView],
        of layout: ParameterLayout,
        with shards: [[TensorView]],
        of whole: ParameterLayout
    ) throws(CheckpointError) -> [TensorView] {
        var saved = SavedOptimizer()
        var tensors: [TensorView] = []
        for tensor in own {
            if tensor.name == Self.stepsName { saved.add(tensor, of: layout) } else { tensors.append(tensor) }
        }
        var found: [String: [TensorView]] = [:]
        for shard in shards {
            let names = shard.prefix { $0.name != Self.stepsName }.map(\.name)
            for tensor in shard.dropFirst(names.count) {
                if tensor.name == Self.stepsName {
                    tensor.withUnsafeBytes { bytes in
                        for (index, name) in names.enumerated() where bytes.count >= (index + 1) * 8 {
                            let count = bytes.loadUnaligned(fromByteOffset: index * 8, as: Int64.self)
                            saved.steps[name] = Int(Int64(littleEndian: count))
                        }
                    }
                } else {
                    let name = tensor.name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false).last
                    found[name.map(String.init) ?? tensor.name, default: []].append(tensor)
                }
            }
        }
        for entry in whole.entries { tensors += found[entry.name] ?? [] }
        return [try saved.counts(of: whole)] + tensors
    }
}
