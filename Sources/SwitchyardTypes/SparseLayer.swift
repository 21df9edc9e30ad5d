// SPDX-License-Identifier: Apache-2.0

/// The feed-forward layer of one block that has experts in place of one dense network.
public struct SparseLayer: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The stack that the block belongs to.
    public var stack: Stack
    /// The index of the block in its stack, from 0.
    public var block: Int

    /// Names a sparse layer.
    ///
    /// - Parameters:
    ///   - stack: The stack that the block belongs to.
    ///   - block: The index of the block in its stack, from 0.
    public init(stack: Stack, block: Int) {
        self.stack = stack
        self.block = block
    }

    /// The stack's name and the block's index: `encoder 1`.
    public var description: String { "\(self.stack) \(self.block)" }

    /// Ascending by block, the encoder's layers before the decoder's.
    public static func < (left: Self, right: Self) -> Bool {
        (left.stack, left.block) < (right.stack, right.block)
    }
}
