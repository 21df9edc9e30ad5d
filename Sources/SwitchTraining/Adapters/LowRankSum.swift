// SPDX-License-Identifier: Apache-2.0

/// `W + s B A` of one matrix.
///
/// As a merged checkpoint computes it (`AdapterUpdate` of Checkpoints): the product's sums run over ascending ranks, each
/// product rounded before it is added; then they are multiplied by the scale, and added to the base. The output may be the base.
struct LowRankSum: @unchecked Sendable {
    // Safety: threads write disjoint rows, and read what no thread writes meanwhile.

    /// `W`, `[outputs, inputs]`.
    let base: UnsafePointer<Float>
    /// `A`, `[rank, inputs]`.
    let first: UnsafePointer<Float>
    /// `B`, `[outputs, rank]`.
    let second: UnsafePointer<Float>
    /// `[outputs, inputs]`.
    let output: UnsafeMutablePointer<Float>
    let inputs: Int
    let rank: Int
    let scale: Float

    func compute(rows: Range<Int>) {
        withUnsafeTemporaryAllocation(of: Float.self, capacity: self.inputs) { room in
            guard let sums = room.baseAddress else { return }
            for row in rows {
                let target = self.output + row * self.inputs
                let start = self.base + row * self.inputs
                sums.initialize(repeating: 0, count: self.inputs)
                for k in 0..<self.rank {
                    let weight = self.second[row * self.rank + k]
                    let source = self.first + k * self.inputs
                    for column in 0..<self.inputs { sums[column] += weight * source[column] }
                }
                for column in 0..<self.inputs { target[column] = start[column] + sums[column] * self.scale }
            }
        }
    }
}
