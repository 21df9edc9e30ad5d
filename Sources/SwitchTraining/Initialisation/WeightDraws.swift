// SPDX-License-Identifier: Apache-2.0

internal import SwitchModel
internal import TensorKernels

/// Draws of weights: each element is a function of the seed, the tensor's name and its place, never of threads or order.
///
/// Uniform numbers come from Philox (``SwitchModel``), normal ones from them by G. Box and M. Muller, "A Note on the Generation
/// of Random Normal Deviates" (1958), with the logarithm and cosine of ``PortableMath``.
public struct WeightDraws: Sendable {
    /// The seed.
    public let seed: UInt64

    /// Tries for a number within a truncated distribution; one in 10^21 needs more, and is set to zero.
    private static let tries: UInt64 = 16

    /// Makes draws.
    ///
    /// - Parameter seed: The seed.
    public init(seed: UInt64) {
        self.seed = seed
    }

    /// Fills a tensor with normal numbers.
    ///
    /// - Parameters:
    ///   - values: The tensor.
    ///   - name: The tensor's name.
    ///   - deviation: The standard deviation.
    ///   - truncated: Whether numbers beyond two standard deviations are drawn again, which makes the actual deviation 0.88
    ///     of the one given.
    ///   - pool: The threads.
    func fill(
        _ values: UnsafeMutableBufferPointer<Float>,
        name: String,
        deviation: Double,
        truncated: Bool,
        pool: WorkPool?
    ) {
        let key = Self.key(name)
        guard let start = values.baseAddress else { return }
        let place = Place(pointer: start)
        WorkPool.share(values.count, width: 64, among: pool) { range in
            for index in range {
                place.pointer[index] = Float(self.normal(key, UInt64(index), truncated: truncated) * deviation)
            }
        }
    }

    /// Fills a tensor with numbers that are uniform within `-bound ..< bound`.
    ///
    /// - Parameters:
    ///   - values: The tensor.
    ///   - name: The tensor's name.
    ///   - bound: The bound.
    func fill(_ values: UnsafeMutableBufferPointer<Float>, name: String, uniformWithin bound: Double) {
        let key = Self.key(name)
        for index in values.indices {
            let unit = Philox.uniform(seed: self.seed, sequence: key, step: UInt64(index))
            values[index] = Float((2 * unit - 1) * bound)
        }
    }

    private struct Place: @unchecked Sendable {
        // Safety: each thread writes its own elements.
        let pointer: UnsafeMutablePointer<Float>
    }

    /// Draws a tensor of normal numbers.
    ///
    /// - Parameters:
    ///   - count: The number of elements.
    ///   - name: The tensor's name.
    ///   - deviation: The standard deviation.
    /// - Returns: The numbers.
    public func normal(count: Int, name: String, deviation: Double) -> [Float] {
        [Float](unsafeUninitializedCapacity: count) { values, filled in
            let values = UnsafeMutableBufferPointer(rebasing: values[..<count])
            self.fill(values, name: name, deviation: deviation, truncated: false, pool: nil)
            filled = count
        }
    }

    private func normal(_ key: UInt64, _ index: UInt64, truncated: Bool) -> Double {
        for attempt in 0..<(truncated ? Self.tries : 1) {
            let step = (index * Self.tries + attempt) * 2
            let radius = 1 - Philox.uniform(seed: self.seed, sequence: key, step: step)
            let turn = Philox.uniform(seed: self.seed, sequence: key, step: step + 1) * 2
            let number =
                (-2 * PortableMath.logarithm(radius)).squareRoot()
                * PortableMath.cosine(halfTurns: turn > 1 ? 2 - turn : turn)
            if !truncated || abs(number) <= 2 { return number }
        }
        return 0
    }

    /// FNV-1a of a name (http://www.isthe.com/chongo/tech/comp/fnv/).
    private static func key(_ name: String) -> UInt64 {
        name.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
    }
}
