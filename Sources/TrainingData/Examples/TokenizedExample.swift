// SPDX-License-Identifier: Apache-2.0

/// An input and the target that a model shall give for it.
public struct TokenizedExample: Sendable, Hashable {
    /// The input's ids, `</s>` at the end.
    public var input: [Int32]

    /// The target's ids, `</s>` at the end.
    public var target: [Int32]

    /// The index of the line that it comes from; the first one where lines were joined.
    public var line: Int

    /// Creates an example.
    ///
    /// - Parameters:
    ///   - input: The input's ids.
    ///   - target: The target's ids.
    ///   - line: The index of the line that it comes from.
    public init(input: [Int32], target: [Int32], line: Int) {
        self.input = input
        self.target = target
        self.line = line
    }
}
