// SPDX-License-Identifier: Apache-2.0

/// One expert of a model.
public struct ExpertID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The layer that the expert belongs to.
    public var layer: SparseLayer
    /// The index of the expert in its layer, from 0.
    public var index: Int

    /// Names an expert.
    ///
    /// - Parameters:
    ///   - layer: The layer that the expert belongs to.
    ///   - index: The index of the expert in its layer, from 0.
    public init(layer: SparseLayer, index: Int) {
        self.layer = layer
        self.index = index
    }

    /// The layer and the expert's index: `encoder 1 expert 3`.
    public var description: String { "\(self.layer) expert \(self.index)" }

    /// Ascending by layer, then by index.
    public static func < (left: Self, right: Self) -> Bool {
        (left.layer, left.index) < (right.layer, right.index)
    }
}
