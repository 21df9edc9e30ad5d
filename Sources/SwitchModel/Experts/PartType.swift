// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// The types in which a part's experts are kept.
///
/// Parts are packed one by one, so parts of one checkpoint may have different types, which a host's answers would not
/// reveal.
struct PartType {
    let directory: String
    let isPacked: Bool
    var kept: Set<DType> = []

    init(_ checkpoint: Checkpoint) {
        self.directory = checkpoint.directory
        self.isPacked = checkpoint.packing != nil
    }

    /// Checks that packed parts have the same types as the others.
    static func requireOne(_ parts: [PartType]) throws(ModelError) {
        let parts = parts.filter { !$0.kept.isEmpty }
        guard parts.contains(where: \.isPacked), let first = parts.first,
            let other = parts.first(where: { $0.kept != first.kept })
        else { return }
        throw ModelError(
            code: .unsupported,
            message: "\(first.directory) keeps weights in \(first.names) and \(other.directory) in \(other.names); "
                + "name parts of one type, cut together"
        )
    }

    private var names: String {
        self.kept.map { "\($0)" }.sorted().joined(separator: " and ")
    }
}
