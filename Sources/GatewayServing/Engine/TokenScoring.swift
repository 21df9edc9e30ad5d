// SPDX-License-Identifier: Apache-2.0

internal import SwitchModel
internal import TensorKernels

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// Log-probabilities of given tokens.
enum TokenScoring {
    /// Computes how likely each token of a target is.
    ///
    /// - Parameters:
    ///   - target: The tokens' ids, each below the number of columns.
    ///   - logits: `[target.count, vocabulary]` float32; row `i` is the model's prediction for position `i`.
    ///   - count: How many of the most likely tokens to name at each position.
    /// - Returns: One entry for each token.
    static func scores(of target: [Int32], logits: FloatMatrix, topLogprobs count: Int) -> [TokenScore] {
        precondition(logits.rows == target.count, "\(logits.rows) rows of logits for \(target.count) tokens")
        return target.enumerated()
            .map { place, id in
                let row = UnsafeBufferPointer(logits.row(place))
                let normalizer = Self.logSumOfExponentials(row)
                return TokenScore(
                    id: id,
                    logprob: Float(Double(row[Int(id)]) - normalizer),
                    topLogprobs: Self.top(row, count: count)
                        .map {
                            .init(id: Int32($0), logprob: Float(Double(row[$0]) - normalizer))
                        }
                )
            }
    }

    /// The logarithm of the sum of the exponentials, in double precision and in ascending order of the index.
    private static func logSumOfExponentials(_ row: UnsafeBufferPointer<Float>) -> Double {
        let greatest = Double(row.max() ?? 0)
        var sum = 0.0
        for value in row {
            sum += exp(Double(value) - greatest)
        }
        return greatest + log(sum)
    }

    /// The indices of the greatest values, greatest first; equal values are in index order.
    private static func top(_ row: UnsafeBufferPointer<Float>, count: Int) -> [Int] {
        guard count > 0 else {
            return []
        }
        var best: [Int] = []
        for index in row.indices {
            if best.count == count, let last = best.last, row[last] >= row[index] {
                continue
            }
            let place = best.firstIndex { row[$0] < row[index] } ?? best.count
            best.insert(index, at: place)
            if best.count > count {
                best.removeLast()
            }
        }
        return best
    }
}
