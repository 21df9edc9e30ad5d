// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import TensorKernels

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// The relative position bias of one stack: one learned number for each head and bucket of distances, added to the
/// scores of every self-attention layer of the stack.
///
/// Raffel et al., "Exploring the Limits of Transfer Learning" (2020), section 2.1; buckets as transformers computes
/// them (`_relative_position_bucket`): half of them for exact distances, the others growing logarithmically up to the
/// largest distance.
package struct RelativeBias: Sendable {
    /// `[buckets, heads]`.
    let table: FloatMatrix

    /// Whether keys after the query have their own buckets (as in the encoder).
    let bidirectional: Bool

    /// The distance from which all fall into the last bucket.
    let largestDistance: Int

    /// The biases of a range of distances, laid out so that a query's row is contiguous.
    struct Span {
        /// `[heads, 2 * length - 1]`, or `[heads, length]` when no key lies after its query.
        let values: FloatMatrix

        /// Positions covered.
        let length: Int

        /// The biases of one query, for keys 0, 1, ...
        ///
        /// - Parameters:
        ///   - head: The head.
        ///   - position: The query's position, below `length`.
        /// - Returns: The bias of key 0; those of the following keys follow.
        func row(head: Int, position: Int) -> UnsafePointer<Float> {
            UnsafePointer(self.values.pointer + head * self.values.columns + (self.length - 1 - position))
        }
    }

    /// Lays out the biases for positions `0 ..< length`.
    ///
    /// - Parameter length: Number of positions, at least 1.
    /// - Returns: The biases.
    func span(length: Int) -> Span {
        let heads = self.table.columns
        let columns = self.bidirectional ? 2 * length - 1 : length
        let values = FloatMatrix.temporary(rows: heads, columns: columns)
        for column in 0..<columns {
            let bucket = self.bucket(distance: column - (length - 1))
            for head in 0..<heads {
                values.pointer[head * columns + column] = self.table.row(bucket)[head]
            }
        }
        return Span(values: values, length: length)
    }

    /// The bucket of a distance.
    ///
    /// - Parameter distance: The key's position minus the query's.
    /// - Returns: The row of the table.
    func bucket(distance: Int) -> Int {
        Self.bucket(
            distance: distance,
            buckets: self.table.rows,
            bidirectional: self.bidirectional,
            largestDistance: self.largestDistance
        )
    }

    /// The bucket of a distance, given the table's size.
    ///
    /// - Parameters:
    ///   - distance: The key's position minus the query's.
    ///   - buckets: Rows of the table.
    ///   - bidirectional: Whether keys after the query have their own buckets.
    ///   - largestDistance: The distance from which all fall into the last bucket.
    /// - Returns: The row of the table.
    package static func bucket(distance: Int, buckets: Int, bidirectional: Bool, largestDistance: Int) -> Int {
        let buckets = bidirectional ? buckets / 2 : buckets
        let offset = bidirectional && distance > 0 ? buckets : 0
        let magnitude = bidirectional ? abs(distance) : max(-distance, 0)
        if magnitude < buckets / 2 {
            return offset + magnitude
        }
        if largestDistance == 128, let bounds = RelativeBias.knownBounds[buckets] {
            // How many bounds lie at or below the distance.
            let passed = bounds.prefix { $0 <= magnitude }.count
            return offset + buckets / 2 + passed - 1
        }
        return offset + RelativeBias.logarithmicBucket(magnitude, buckets: buckets, largest: largestDistance)
    }

    /// The first distance of each logarithmic bucket, for the sizes of every published checkpoint.
    ///
    /// These are 32 buckets and distance 128; the encoder has half of the buckets for each direction. They are listed
    /// because they depend on how a float32 logarithm rounds.
    private static let knownBounds: [Int: [Int]] = [
        16: [8, 12, 16, 23, 32, 46, 64, 91],
        32: [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113],
    ]

    /// The formula for other sizes, in float32 as transformers evaluates it.
    static func logarithmicBucket(_ magnitude: Int, buckets: Int, largest: Int) -> Int {
        let exact = buckets / 2
        guard exact > 0, largest > exact else {
            return max(buckets - 1, 0)
        }
        let ratio = logf(Float(magnitude) / Float(exact)) / Float(log(Double(largest) / Double(exact)))
        let bucket = exact + Int(ratio * Float(buckets - exact))
        return min(bucket, buckets - 1)
    }
}
