// SPDX-License-Identifier: Apache-2.0

/// The examples of a step, packed: their tokens lie one after the other, without padding.
///
/// Sequence `i` has the ids at `offsets[i] ..< offsets[i + 1]`. So short examples cost what they are long, and there is
/// nothing to gain from putting several into one sequence.
public struct TokenizedBatch: Sendable, Hashable {
    /// The inputs' ids, one sequence after the other, `</s>` at the end of each.
    public private(set) var inputIDs: [Int32] = []

    /// Where each input begins, and where the last one ends: one number more than examples.
    public private(set) var inputOffsets: [Int] = [0]

    /// The targets' ids, one sequence after the other, `</s>` at the end of each.
    public private(set) var targetIDs: [Int32] = []

    /// Where each target begins, and where the last one ends: one number more than examples.
    public private(set) var targetOffsets: [Int] = [0]

    /// The line that each example comes from.
    public private(set) var lines: [Int] = []

    /// A batch without examples.
    public init() {}

    /// How many examples there are.
    public var count: Int { self.lines.count }

    /// Adds an example.
    ///
    /// - Parameter example: The example.
    public mutating func append(_ example: TokenizedExample) {
        self.inputIDs += example.input
        self.inputOffsets.append(self.inputIDs.count)
        self.targetIDs += example.target
        self.targetOffsets.append(self.targetIDs.count)
        self.lines.append(example.line)
    }

    /// One of the inputs.
    ///
    /// - Parameter index: Within `0 ..< count`.
    /// - Returns: Its ids.
    public func input(_ index: Int) -> ArraySlice<Int32> {
        self.inputIDs[self.inputOffsets[index]..<self.inputOffsets[index + 1]]
    }

    /// One of the targets.
    ///
    /// - Parameter index: Within `0 ..< count`.
    /// - Returns: Its ids.
    public func target(_ index: Int) -> ArraySlice<Int32> {
        self.targetIDs[self.targetOffsets[index]..<self.targetOffsets[index + 1]]
    }
}

/// How large a batch may become; the limit that is reached first counts.
public struct BatchLimits: Sendable, Hashable, CustomStringConvertible {
    /// Tokens of all targets at most.
    public var targetTokens: Int?

    /// Tokens of all inputs at most.
    public var inputTokens: Int?

    /// Examples at most.
    public var examples: Int?

    /// Whether a batch ends with its epoch, though it may be small then; it is filled up with the next epoch's otherwise.
    public var endsWithEpoch: Bool

    /// Creates limits.
    ///
    /// - Parameters:
    ///   - targetTokens: Tokens of all targets at most.
    ///   - inputTokens: Tokens of all inputs at most.
    ///   - examples: Examples at most.
    ///   - endsWithEpoch: Whether a batch ends with its epoch.
    public init(
        targetTokens: Int? = nil,
        inputTokens: Int? = nil,
        examples: Int? = nil,
        endsWithEpoch: Bool = false
    ) {
        self.targetTokens = targetTokens
        self.inputTokens = inputTokens
        self.examples = examples
        self.endsWithEpoch = endsWithEpoch
    }

    /// The limits in words; a run that resumes compares them, so the words of runs that exist stay.
    public var description: String {
        func words(_ value: Int?) -> String { value.map { "Optional(\($0))" } ?? "nil" }
        return "BatchLimits(targetTokens: \(words(self.targetTokens)), inputTokens: \(words(self.inputTokens)), "
            + "examples: \(words(self.examples))\(self.endsWithEpoch ? ", endsWithEpoch: true" : ""))"
    }

    /// Checks that the limits end a batch, and that the longest example fits into one.
    func check(_ settings: ExampleSettings) throws(DataError) {
        guard self.targetTokens != nil || self.inputTokens != nil || self.examples != nil else {
            throw DataError(.invalidSettings, "a batch needs a limit: tokens of targets or inputs, or examples")
        }
        for (name, value, least) in [
            ("target tokens", self.targetTokens, settings.maximumTargetTokens),
            ("input tokens", self.inputTokens, settings.maximumInputTokens), ("examples", self.examples, 1),
        ] {
            guard let value else { continue }
            guard value >= least, value <= 1 << 30 else {
                throw DataError(
                    .invalidSettings,
                    "a batch of \(value) \(name) does not hold the longest example; it must be from \(least) to \(1 << 30)"
                )
            }
        }
    }

    /// Whether an example still fits into a batch.
    func hasRoom(for example: TokenizedExample, in batch: TokenizedBatch) -> Bool {
        batch.count == 0
            || (batch.count < self.examples ?? .max
                && batch.targetIDs.count + example.target.count <= self.targetTokens ?? .max
                && batch.inputIDs.count + example.input.count <= self.inputTokens ?? .max)
    }
}
