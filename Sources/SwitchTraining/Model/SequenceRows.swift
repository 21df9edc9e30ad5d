// SPDX-License-Identifier: Apache-2.0

/// Which rows belong to which sequence: a part's rows are its sequences' one after the other, with no padding.
struct SequenceRows {
    /// The index in the step of the first sequence.
    let first: Int

    /// The rows of each sequence.
    let ranges: [Range<Int>]

    /// All rows.
    var rowCount: Int { self.ranges.last?.upperBound ?? 0 }

    /// Number of sequences.
    var count: Int { self.ranges.count }

    /// The longest sequence's rows.
    let longest: Int

    /// The sequence of each row, from 0 in this part.
    let sequenceOfRow: [Int32]

    init(lengths: [Int], first: Int) {
        self.first = first
        var ranges: [Range<Int>] = []
        var owners: [Int32] = []
        var next = 0
        for (index, length) in lengths.enumerated() {
            ranges.append(next..<(next + length))
            owners.append(contentsOf: repeatElement(Int32(index), count: length))
            next += length
        }
        self.ranges = ranges
        self.longest = lengths.max() ?? 0
        self.sequenceOfRow = owners
    }

    /// The index in the step of a row's sequence, and the row's position in it.
    func place(_ row: Int) -> (sequence: Int, position: Int) {
        let sequence = Int(self.sequenceOfRow[row])
        return (self.first + sequence, row - self.ranges[sequence].lowerBound)
    }
}
