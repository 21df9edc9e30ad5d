// SPDX-License-Identifier: Apache-2.0

/// How far a long piece of work (opening, packing, copying) has got, for progress bars.
public struct WorkProgress: Sendable, Hashable {
    /// What `completed` and `total` count.
    public enum Unit: Sendable, Hashable {
        /// Bytes of tensor data.
        case bytes
        /// Whole tensors.
        case tensors
        /// Whole files.
        case files
    }

    /// What is being done, in a few words for a progress bar: "Writing pool-0".
    public var label: String
    /// How much is done, 0 through `total`.
    public var completed: Int
    /// How much there is to do.
    public var total: Int
    /// What is counted.
    public var unit: Unit

    /// Describes one moment of a piece of work.
    ///
    /// - Parameters:
    ///   - label: What is being done.
    ///   - completed: How much is done.
    ///   - total: How much there is to do.
    ///   - unit: What is counted.
    public init(label: String, completed: Int, total: Int, unit: Unit) {
        self.label = label
        self.completed = completed
        self.total = total
        self.unit = unit
    }

    /// The share that is done, 0 through 1; 1 where there is nothing to do.
    public var fraction: Double {
        self.total <= 0 ? 1 : min(1, Double(self.completed) / Double(self.total))
    }
}
