// SPDX-License-Identifier: Apache-2.0

/// Powers and cosines made of additions, multiplications, divisions and square roots alone.
///
/// The C library's functions may differ in their last bit from one version or processor to another; these do not, and what
/// they give decides the bits of weights. Errors stay below 1e-14 of the result within the ranges that schedules use.
enum PortableMath {
    private static let ln2High = 0x1.62e42feep-1
    private static let ln2Low = 0x1.a39ef35793c76p-33

    /// A power with a whole exponent, by repeated squaring.
    ///
    /// - Parameters:
    ///   - base: The base.
    ///   - exponent: Not negative.
    /// - Returns: The power.
    static func power(_ base: Double, _ exponent: Int) -> Double {
        var result = 1.0
        var square = base
        var rest = exponent
        while rest > 0 {
            if rest & 1 == 1 { result *= square }
            square *= square
            rest >>= 1
        }
        return result
    }

    /// A power with any exponent.
    ///
    /// - Parameters:
    ///   - base: Above 0, finite.
    ///   - exponent: The exponent; the result must be neither huge nor tiny.
    /// - Returns: The power.
    static func power(_ base: Double, _ exponent: Double) -> Double {
        self.exponential(exponent * self.logarithm(base))
    }

    /// The natural logarithm, by the series of the area tangent.
    static func logarithm(_ value: Double) -> Double {
        var mantissa = value.significand
        var exponent = Double(value.exponent)
        if mantissa > 1.414_213_562_373_095_1 {
            mantissa /= 2
            exponent += 1
        }
        let z = (mantissa - 1) / (mantissa + 1)
        let square = z * z
        var sum = 0.0
        for term in stride(from: 25, through: 1, by: -2) {
            sum = sum * square + 1 / Double(term)
        }
        return exponent * Self.ln2High + (2 * z * sum + exponent * Self.ln2Low)
    }

    private static func exponential(_ value: Double) -> Double {
        let whole = (value / (Self.ln2High + Self.ln2Low)).rounded()
        let rest = (value - whole * Self.ln2High) - whole * Self.ln2Low
        var sum = 1.0
        for term in stride(from: 16, through: 1, by: -1) {
            sum = sum * rest / Double(term) + 1
        }
        return Double(sign: .plus, exponent: Int(whole), significand: sum)
    }

    /// The cosine of a number of half turns: `cos(pi * turns)`.
    ///
    /// - Parameter turns: Within 0...1.
    /// - Returns: The cosine.
    static func cosine(halfTurns turns: Double) -> Double {
        // Within a quarter of a half turn, the series needs few terms; beyond it, symmetries lead there.
        if turns > 0.5 { return -self.cosine(halfTurns: 1 - turns) }
        if turns > 0.25 { return self.sine(halfTurns: 0.5 - turns) }
        let square = (turns * Double.pi) * (turns * Double.pi)
        var sum = 1.0
        for term in stride(from: 20, through: 2, by: -2) {
            sum = 1 - sum * square / Double(term * (term - 1))
        }
        return sum
    }

    private static func sine(halfTurns turns: Double) -> Double {
        let angle = turns * Double.pi
        var sum = 1.0
        for term in stride(from: 21, through: 3, by: -2) {
            sum = 1 - sum * (angle * angle) / Double(term * (term - 1))
        }
        return angle * sum
    }
}
