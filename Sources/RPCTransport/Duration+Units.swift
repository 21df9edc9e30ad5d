// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

extension Duration {
    /// The duration in whole nanoseconds, cut to what 64 bits hold.
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? (seconds < 0 ? .min : .max) : scaled + attoseconds / 1_000_000_000
    }

    /// The duration as event loops count it; less than nothing becomes nothing.
    var timeAmount: TimeAmount {
        .nanoseconds(Swift.max(0, self.nanoseconds))
    }
}
