// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A number in float64, with a bound of how far float32 may be off it.
///
/// Each operation adds what its rounding can add (N. Higham, "Accuracy and Stability of Numerical Algorithms", 2002,
/// section 3.3), and sums allow for any order. So each element of a result has a limit that follows from its computation,
/// and a test neither fails by chance nor overlooks a wrong term.
struct Rounded: Sendable {
    var value: Double
    var error: Double

    /// The relative error of one rounding to float32.
    static let unit = 0x1p-24
    /// The least normal number of float32: what underflow may lose.
    static let least = 0x1p-126

    /// A constant, rounded to float32; exact for whatever is a float.
    init(_ value: Double) {
        self.value = value
        self.error = abs(Double(Float(value)) - value)
    }

    init(_ value: Float) {
        self.value = Double(value)
        self.error = 0
    }

    /// A result whose operands bring an error with them; `roundings` is what computing it adds, in units.
    init(_ value: Double, propagated: Double, roundings: Double = 1) {
        self.value = value
        let rounding = roundings * Self.unit * (abs(value) + propagated) + Self.least
        // Nothing is rounded in a zero.
        self.error = value == 0 && propagated == 0 ? 0 : propagated + rounding
    }

    static let zero = Rounded(Float(0))
    static let one = Rounded(Float(1))

    static func + (a: Rounded, b: Rounded) -> Rounded {
        Rounded(a.value + b.value, propagated: a.error + b.error)
    }

    static func - (a: Rounded, b: Rounded) -> Rounded {
        Rounded(a.value - b.value, propagated: a.error + b.error)
    }

    static func * (a: Rounded, b: Rounded) -> Rounded {
        Rounded(
            a.value * b.value,
            propagated: abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error
        )
    }

    static func / (a: Rounded, b: Rounded) -> Rounded {
        let quotient = a.value / b.value
        return Rounded(quotient, propagated: (a.error + abs(quotient) * b.error) / max(abs(b.value) - b.error, 0))
    }

    static prefix func - (a: Rounded) -> Rounded {
        var result = a
        result.value = -a.value
        return result
    }

    var squareRoot: Rounded {
        let root = self.value.squareRoot()
        let lower = max(self.value - self.error, 0).squareRoot()
        return Rounded(root, propagated: root + lower == 0 ? 0 : self.error / (root + lower))
    }

    /// The exponential function; the kernel's is within 4 units in the last place.
    var exponential: Rounded {
        let power = exp(self.value)
        return Rounded(power, propagated: power * expm1(self.error), roundings: 8)
    }

    var logarithm: Rounded {
        Rounded(log(self.value), propagated: self.error / max(self.value - self.error, 0))
    }

    /// The hyperbolic tangent, whose slope is 1 at most.
    var hyperbolicTangent: Rounded { Rounded(tanh(self.value), propagated: self.error, roundings: 8) }

    /// The error function, whose slope is 2 / sqrt(pi) at most.
    var errorFunction: Rounded { Rounded(erf(self.value), propagated: 1.13 * self.error, roundings: 8) }

    /// The larger of two numbers.
    static func larger(_ a: Rounded, _ b: Rounded) -> Rounded {
        var result = a.value > b.value ? a : b
        result.error = max(a.error, b.error)
        return result
    }

    /// 1 above a limit, else 0; either where rounding decides.
    func isAbove(_ limit: Double) -> Rounded {
        var result = Rounded(Float(self.value > limit ? 1 : 0))
        if self.error > 0, abs(self.value - limit) <= self.error { result.error = 1 }
        return result
    }
}

/// A sum in any order.
struct RoundedSum {
    private var value = 0.0
    private var propagated = 0.0
    private var magnitudes = 0.0
    private var count = 0.0

    mutating func add(_ term: Rounded) {
        self.value += term.value
        self.propagated += term.error
        self.magnitudes += abs(term.value)
        self.count += 1
    }

    mutating func add(_ a: Rounded, times b: Rounded) { self.add(a * b) }

    var result: Rounded {
        var result = Rounded(self.value, propagated: 0)
        result.error = self.propagated + self.count * Rounded.unit * (self.magnitudes + self.propagated)
        return result
    }
}

/// A matrix of such numbers.
struct Grid: Sendable {
    let rows: Int
    let columns: Int
    var values: [Rounded]

    init(_ rows: Int, _ columns: Int) {
        self.rows = rows
        self.columns = columns
        self.values = Array(repeating: .zero, count: rows * columns)
    }

    subscript(row: Int, column: Int) -> Rounded {
        get { self.values[row * self.columns + column] }
        set { self.values[row * self.columns + column] = newValue }
    }

    /// One row.
    func row(_ row: Int) -> Grid { self.rows(row..<row + 1) }

    /// Some of the rows.
    func rows(_ range: Range<Int>) -> Grid {
        var result = Grid(range.count, self.columns)
        result.values = Array(self.values[range.lowerBound * self.columns..<range.upperBound * self.columns])
        return result
    }

    mutating func replace(_ range: Range<Int>, with other: Grid) {
        for (index, row) in range.enumerated() {
            for column in 0..<self.columns { self[row, column] = other[index, column] }
        }
    }

    /// Its numbers plus a multiple of another's, exactly.
    func moved(along other: [Double], by step: Double) -> Grid {
        var result = self
        for index in result.values.indices { result.values[index].value += step * other[index] }
        return result
    }

    /// The sum of its elements, each times that of another.
    func along(_ other: Grid) -> Double {
        zip(self.values, other.values).reduce(0) { $0 + $1.0.value * $1.1.value }
    }
}
