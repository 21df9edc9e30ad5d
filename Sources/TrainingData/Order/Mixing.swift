// SPDX-License-Identifier: Apache-2.0

/// Random numbers that depend on nothing but a key.
///
/// SplitMix64 from G. Steele, D. Lea and C. Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014,
/// doi:10.1145/2660193.2660195), with the constants of its Java version. Not a generator of the standard library's, whose
/// algorithms may change from one release to the next: a run must stay the same run.
struct KeyedRandom {
    private var state: UInt64

    /// A generator for a key.
    ///
    /// - Parameter key: Numbers, such as a seed, an epoch and an index. Their order counts.
    init(key: UInt64...) {
        self.state = key.reduce(0x6A09_E667_F3BC_C908) { Mixing.mixed($0 ^ $1) &+ Mixing.step }
    }

    /// 64 random bits.
    mutating func next() -> UInt64 {
        self.state &+= Mixing.step
        return Mixing.mixed(self.state)
    }

    /// A number within `0 ..< bound`, each as likely as the others.
    ///
    /// The upper half of a product, and another try where that would favour some numbers (D. Lemire, "Fast Random Integer
    /// Generation in an Interval", arXiv 1805.10941, without its shortcut).
    ///
    /// - Parameter bound: At least 1.
    /// - Returns: The number.
    mutating func below(_ bound: Int) -> Int {
        let bound = UInt64(bound)
        let threshold = (0 &- bound) % bound
        while true {
            let product = self.next().multipliedFullWidth(by: bound)
            if product.low >= threshold {
                return Int(product.high)
            }
        }
    }
}

/// SplitMix64's finalizer.
enum Mixing {
    /// The golden ratio's fraction as 64 bits, odd.
    static let step: UInt64 = 0x9E37_79B9_7F4A_7C15

    /// Mixes 64 bits; no two inputs give the same output.
    ///
    /// - Parameter value: The bits.
    /// - Returns: The mixed bits.
    static func mixed(_ value: UInt64) -> UInt64 {
        var bits = value
        bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
        return bits ^ (bits >> 31)
    }
}
