// SPDX-License-Identifier: Apache-2.0

extension Duration {
    /// The duration in whole microseconds, 0 if it is negative.
    var wholeMicroseconds: UInt64 {
        let (seconds, attoseconds) = self.components
        let total = Double(seconds) * 1e6 + Double(attoseconds) * 1e-12
        return total > 0 ? UInt64(min(total, 1e18)) : 0
    }
}
