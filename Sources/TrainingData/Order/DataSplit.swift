// SPDX-License-Identifier: Apache-2.0

/// Which lines a run learns from, and which are held out to evaluate it.
///
/// The held-out lines are the first places of a shuffled order of their own, so exactly as many as the share says are held
/// out, they come from all over the files, and no list of them is kept. Lines are told apart by their place: where the same
/// text stands on two lines, one may be held out and the other not.
public struct DataSplit: Sendable, Hashable {
    /// The lines that there are.
    public let lineCount: Int

    /// The lines that are held out.
    public let evaluationCount: Int

    /// The lines to learn from.
    public var trainingCount: Int { self.lineCount - self.evaluationCount }

    private let order: Permutation

    /// Holds out a share.
    ///
    /// - Parameters:
    ///   - lineCount: The lines that there are.
    ///   - evaluationShare: The share to hold out, at least 0 and below 1; the number of lines is rounded to the nearest.
    ///   - seed: The seed. Another one holds out other lines.
    /// - Throws: ``DataError`` when the share is out of range, or leaves nothing to learn from.
    public init(lineCount: Int, evaluationShare: Double, seed: UInt64) throws(DataError) {
        guard evaluationShare >= 0, evaluationShare < 1 else {
            throw DataError(
                .invalidSettings,
                "the share of lines to hold out is \(evaluationShare); it must be at least 0 and below 1"
            )
        }
        let held = Int((Double(lineCount) * evaluationShare).rounded())
        guard held < lineCount || lineCount == 0 else {
            throw DataError(
                .invalidSettings,
                "holding out \(evaluationShare) of \(lineCount) lines leaves none to learn from; hold out fewer"
            )
        }
        self.lineCount = lineCount
        self.evaluationCount = held
        // No epoch has this number.
        self.order = Permutation(count: lineCount, seed: seed, epoch: .max)
    }

    /// A line to learn from.
    ///
    /// - Parameter place: Within `0 ..< trainingCount`.
    /// - Returns: The line's index.
    public func trainingLine(_ place: Int) -> Int {
        self.evaluationCount == 0 ? place : self.order[self.evaluationCount + place]
    }

    /// A line that is held out.
    ///
    /// - Parameter place: Within `0 ..< evaluationCount`.
    /// - Returns: The line's index.
    public func evaluationLine(_ place: Int) -> Int {
        precondition(place < self.evaluationCount, "place \(place) of \(self.evaluationCount)")
        return self.order[place]
    }
}
