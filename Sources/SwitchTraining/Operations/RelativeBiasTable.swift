// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes

/// A stack's relative position biases, laid out by distance for all its attention layers.
struct RelativeBiasTable {
    /// `[heads, 2 * longest - 1]`: distance `d` (the key's position minus the query's) in column `longest - 1 + d`.
    let values: Rows
    let longest: Int
    /// The bucket of each column.
    let buckets: [Int]

    init(_ run: PartRun, _ parameters: ModelParameters, stack: Stack, longest: Int) {
        let configuration = run.configuration
        let heads = configuration.headCount
        let columns = max(2 * longest - 1, 1)
        self.longest = longest
        self.buckets = (0..<columns)
            .map { column in
                RelativeBias.bucket(
                    distance: column - (longest - 1),
                    buckets: configuration.relativeBuckets,
                    bidirectional: stack == .encoder,
                    largestDistance: configuration.relativeMaxDistance
                )
            }
        self.values = run.arena.rows(heads, columns: columns)
        guard let index = parameters.relativeBias[stack] else { return }
        let table = run.weights.start(index)
        for head in 0..<heads {
            for column in 0..<columns {
                self.values.row(head)[column] = table[self.buckets[column] * heads + head]
            }
        }
    }

    /// The biases of a sequence, as the attention kernel reads them.
    func start(head: Int, length: Int) -> UnsafeMutablePointer<Float> {
        self.values.row(head) + (self.longest - length)
    }
}
