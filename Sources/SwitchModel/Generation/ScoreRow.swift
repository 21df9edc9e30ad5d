// SPDX-License-Identifier: Apache-2.0

public import TensorKernels

#if canImport(Glibc)
private import Glibc
#elseif canImport(Musl)
private import Musl
#elseif canImport(Darwin)
private import Darwin
#endif

/// One row of scores, one score for each token of the vocabulary, and what is computed from all of them.
///
/// A score that is not a number counts as minus infinity, and plus infinity as the greatest float, so that a model that
/// overflowed yields some token and never crashes. Sums have a fixed order and use only additions and multiplications
/// that IEEE 754 defines, so results are the same on every machine.
struct ScoreRow {
    private typealias Vector = SIMD8<Float>
    private static let width = 8

    /// The scores, by token id.
    let scores: UnsafeBufferPointer<Float>

    /// The greatest score, and the lowest id that has it.
    ///
    /// - Returns: The id and its score, or nil when no score is above minus infinity.
    func best() -> (id: Int, score: Float)? {
        var bestScores = Vector(repeating: -.infinity)
        var bestIDs = SIMD8<Int32>(repeating: -1)
        var ids = SIMD8<Int32>(0, 1, 2, 3, 4, 5, 6, 7)
        self.forEachVector { _, vector in
            // False where the score is not a number.
            let isBetter = vector .> bestScores
            bestScores.replace(with: vector, where: isBetter)
            bestIDs.replace(with: ids, where: isBetter)
            ids &+= Int32(Self.width)
        }
        var found: (id: Int, score: Float)?
        for lane in 0..<Self.width where bestIDs[lane] >= 0 {
            let candidate = (id: Int(bestIDs[lane]), score: bestScores[lane])
            guard let current = found else {
                found = candidate
                continue
            }
            if candidate.score > current.score || (candidate.score == current.score && candidate.id < current.id) {
                found = candidate
            }
        }
        return found.map { ($0.id, Self.clamped($0.score)) }
    }

    /// The logarithm of the sum of the scores' exponentials, which turns scores into log probabilities.
    ///
    /// - Parameter greatest: The greatest score, from ``best()``.
    /// - Returns: The logarithm.
    func logSumOfExponentials(greatest: Float) -> Float {
        greatest + Float(log(self.sumOfExponentials(greatest: greatest)))
    }

    /// The sum of the exponentials of the scores minus the greatest one; from 1 up to their number.
    private func sumOfExponentials(greatest: Float) -> Double {
        var total = 0.0
        var partial = Vector.zero
        var count = 0
        self.forEachVector { _, vector in
            partial += Self.exponential(vector - greatest)
            count += 1
            if count == 64 {  // Short float sums, added up as doubles, keep seven digits.
                total += Self.sum(partial)
                partial = .zero
                count = 0
            }
        }
        return total + Self.sum(partial)
    }

    /// Calls `body` with the scores in order, eight at a time, padded at the end with minus infinity.
    ///
    /// - Parameter body: Gets the first score's id and the scores.
    @inline(__always)
    private func forEachVector(_ body: (Int, SIMD8<Float>) -> Void) {
        let count = self.scores.count
        guard let base = self.scores.baseAddress.map(UnsafeRawPointer.init) else { return }
        let whole = count - count % Self.width
        var index = 0
        while index < whole {
            body(index, base.loadUnaligned(fromByteOffset: index * MemoryLayout<Float>.stride, as: Vector.self))
            index += Self.width
        }
        guard whole < count else { return }
        var last = Vector(repeating: -.infinity)
        for lane in 0..<(count - whole) {
            last[lane] = self.scores[whole + lane]
        }
        body(whole, last)
    }

    /// Offers every score, raised by `base - shift`, to a selection.
    ///
    /// - Parameters:
    ///   - selection: Takes the greatest; a score's index in it is `firstIndex` plus the token's id.
    ///   - firstIndex: The index of token 0.
    ///   - shift: Is subtracted from each score first.
    ///   - base: Is added to each score then.
    func offer(to selection: inout TopSelection, firstIndex: Int = 0, shift: Float = 0, base: Float = 0) {
        self.forEachVector { start, vector in
            let raised = base + (vector - shift)
            guard any(raised .> selection.threshold) else { return }
            for lane in 0..<min(Self.width, self.scores.count - start) {
                selection.offer(Self.clamped(raised[lane]), index: firstIndex + start + lane)
            }
        }
    }

    /// Calls `body` with each score whose quotient is large enough.
    ///
    /// - Parameters:
    ///   - least: The smallest quotient; minus infinity is always left out.
    ///   - divisor: A positive number.
    ///   - body: Gets the token's id and the quotient, by ascending id.
    func forEach(atLeast least: Float, dividedBy divisor: Float, _ body: (Int, Float) -> Void) {
        self.forEachVector { start, vector in
            let quotients = vector / divisor
            let isLarge = (quotients .>= least) .& (quotients .> -.infinity)
            guard any(isLarge) else { return }
            for lane in 0..<min(Self.width, self.scores.count - start) where isLarge[lane] {
                body(start + lane, Self.clamped(quotients[lane]))
            }
        }
    }

    /// A score that is neither plus infinity nor not a number.
    ///
    /// - Parameter score: Any float.
    /// - Returns: The score as it counts.
    static func clamped(_ score: Float) -> Float {
        score.isNaN ? -.infinity : min(score, .greatestFiniteMagnitude)
    }

    /// e to the power of `x`; 0 where `x` is below -87 or not a number, 1 where it is above 0.
    ///
    /// By S. Moshier's Cephes library, `expf.c`: reduction by a multiple of ln 2 in two parts, a polynomial of degree 5
    /// and scaling by the exponent's bits; within 2 units in the last place.
    ///
    /// - Parameter x: Eight exponents.
    /// - Returns: Eight powers.
    static func exponential(_ x: SIMD8<Float>) -> SIMD8<Float> {
        let isNormal = x .> -87
        let x = x.replacing(with: 0, where: .!isNormal .| (x .> 0))
        // Adding 1.5 * 2^23 rounds to an integer, which is then in the lowest bits.
        let shifter: Float = 0x1.8p23
        let shifted = x * 1.442_695_04 + shifter
        let power = shifted - shifter
        let rest = (x - power * 0.693_359_375) - power * -2.121_944_4e-4
        var value = rest * 1.987_569_15e-4 + 1.398_199_950_7e-3
        value = value * rest + 8.333_451_907_3e-3
        value = value * rest + 4.166_579_589_4e-2
        value = value * rest + 1.666_666_545_9e-1
        value = value * rest + 5.000_000_120_1e-1
        value = value * rest * rest + rest + 1
        let exponent = unsafeBitCast(shifted, to: SIMD8<Int32>.self) &<< 23
        let scaled = unsafeBitCast(value, to: SIMD8<Int32>.self) &+ exponent
        return unsafeBitCast(scaled, to: SIMD8<Float>.self).replacing(with: 0, where: .!isNormal)
    }

    private static func sum(_ vector: SIMD8<Float>) -> Double {
        var total = 0.0
        for lane in 0..<Self.width {
            total += Double(vector[lane])
        }
        return total
    }
}

extension FloatMatrix {
    /// The index of a row's greatest element, the lowest of several; nil where all are minus infinity or NaN.
    ///
    /// - Parameter row: The row, below `rows`.
    /// - Returns: The column.
    public func greatest(inRow row: Int) -> Int? {
        ScoreRow(scores: UnsafeBufferPointer(self.row(row))).best()?.id
    }
}

/// A length to the power of a length penalty, which a sequence's log probability is divided by.
///
/// - Parameters:
///   - length: The number of tokens.
///   - penalty: The power.
/// - Returns: The divisor, rounded from double precision.
func lengthDivisor(_ length: Int, penalty: Float) -> Float {
    Float(pow(Double(length), Double(penalty)))
}
