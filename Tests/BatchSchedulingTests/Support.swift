// SPDX-License-Identifier: Apache-2.0

import BatchScheduling

extension BatchScheduler {
    /// Enqueues a sequence of the one caller that there is.
    mutating func enqueue(
        _ id: SequenceID,
        slots: Int,
        inputTokens: Int,
        deadline: ContinuousClock.Instant?,
        now: ContinuousClock.Instant
    ) -> Admission {
        self.enqueue(id, SequenceNeeds(slots: slots, inputTokens: inputTokens, deadline: deadline), now: now)
    }
}

/// SplitMix64, so that a failing simulation can be repeated.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
