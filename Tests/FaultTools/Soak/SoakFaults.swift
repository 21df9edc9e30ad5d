// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A source of random numbers that gives the same ones for the same seed (SplitMix64,
/// https://prng.di.unimi.it/splitmix64.c).
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// Creates a generator.
    package init(seed: UInt64) {
        self.state = seed
    }

    /// The next number.
    package mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var value = self.state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}

/// What a soak does to a cluster.
package enum SoakFault: String, Sendable, CaseIterable, Codable {
    /// SIGKILL, and a new process at the same address.
    case kill
    /// SIGSTOP, and SIGCONT.
    case stop
    /// SIGTERM, and a new process at the same address once the old one has drained.
    case drain
    /// One more host for a while.
    case scale
}

/// One drawn fault.
package struct SoakStep: Sendable, Hashable {
    /// What happens.
    package var fault: SoakFault
    /// The affected pool.
    package var pool: Int
    /// The host of the pool, by number.
    package var replica: Int
    /// How long it lasts.
    package var time: Duration
    /// How long to wait after it.
    package var pause: Duration

    /// Draws the next fault.
    ///
    /// A pool's first host is never killed or drained, so that there are processes whose memory can be watched from the
    /// beginning to the end.
    ///
    /// - Parameters:
    ///   - generator: Where numbers come from.
    ///   - pools: How many pools there are.
    ///   - replicas: How many hosts each has; at least two.
    ///   - mayScale: Whether hosts can be added.
    /// - Returns: The fault.
    package static func drawn(
        _ generator: inout SeededGenerator,
        pools: Int,
        replicas: Int,
        mayScale: Bool
    ) -> SoakStep {
        let faults = SoakFault.allCases.filter { mayScale || $0 != .scale }
        let fault = faults[Int.random(in: 0..<faults.count, using: &generator)]
        let least = fault == .kill || fault == .drain ? 1 : 0
        return SoakStep(
            fault: fault,
            pool: Int.random(in: 0..<pools, using: &generator),
            replica: Int.random(in: least..<replicas, using: &generator),
            time: .milliseconds(Int.random(in: 200...3000, using: &generator)),
            pause: .milliseconds(Int.random(in: 500...4000, using: &generator))
        )
    }
}
