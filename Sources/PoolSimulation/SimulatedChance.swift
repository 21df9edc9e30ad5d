// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Numbers drawn from the distributions that the simulation needs; the same seed gives the same numbers.
package struct SimulatedChance {
    private var random: PoolRandom

    package init(seed: UInt64) { self.random = PoolRandom(seed: seed) }

    /// Above 0 and at most 1.
    package mutating func uniform() -> Double {
        Double((self.random.next() >> 11) + 1) * 0x1p-53
    }

    /// From 0 up to, not including, the bound.
    package mutating func index(below bound: Int) -> Int {
        Int.random(in: 0..<max(bound, 1), using: &self.random)
    }

    /// Median 1; `sigma` is the deviation of the logarithm.
    package mutating func lognormal(_ sigma: Double) -> Double {
        guard sigma > 0 else { return 1 }
        // G. E. P. Box, M. E. Muller, 1958, https://doi.org/10.1214/aoms/1177706645
        let radius = (-2 * log(self.uniform())).squareRoot()
        return exp(sigma * radius * cos(2 * .pi * self.uniform()))
    }

    /// At least 1; the smaller `alpha`, the heavier the tail.
    package mutating func pareto(_ alpha: Double) -> Double {
        pow(self.uniform(), -1 / alpha)
    }
}

/// Tokens over experts: popularity falls with the rank to some power, and every layer ranks its experts differently.
struct SimulatedRouting {
    private let cumulative: [Double]
    private let ranked: [SparseLayer: [Int]]

    /// Creates the popularity of all layers.
    ///
    /// - Parameters:
    ///   - layers: The sparse layers.
    ///   - experts: Experts of each.
    ///   - skew: The power; 0 is even, 1 is Zipf's law.
    ///   - chance: Ranks the experts.
    init(layers: [SparseLayer], experts: Int, skew: Double, chance: inout SimulatedChance) {
        var sum = 0.0
        self.cumulative = (1...experts)
            .map { rank in
                sum += pow(Double(rank), -skew)
                return sum
            }
        var ranked: [SparseLayer: [Int]] = [:]
        for layer in layers {
            var order = Array(0..<experts)
            for place in stride(from: experts - 1, to: 0, by: -1) {
                order.swapAt(place, chance.index(below: place + 1))
            }
            ranked[layer] = order
        }
        self.ranked = ranked
    }

    /// Routes tokens of a layer.
    ///
    /// - Returns: Expert and row count, by expert.
    func groups(_ tokens: Int, in layer: SparseLayer, _ chance: inout SimulatedChance) -> [(expert: Int, rows: Int)] {
        guard let ranked = self.ranked[layer], let total = self.cumulative.last else { return [] }
        var chosen: [Int] = []
        chosen.reserveCapacity(tokens)
        for _ in 0..<tokens {
            let wanted = chance.uniform() * total
            var low = 0
            var high = self.cumulative.count - 1
            while low < high {
                let middle = (low + high) / 2
                if self.cumulative[middle] < wanted { low = middle + 1 } else { high = middle }
            }
            chosen.append(ranked[low])
        }
        chosen.sort()
        var groups: [(expert: Int, rows: Int)] = []
        for expert in chosen {
            if groups.last?.expert == expert {
                groups[groups.count - 1].rows += 1
            } else {
                groups.append((expert, 1))
            }
        }
        return groups
    }
}
