// SPDX-License-Identifier: Apache-2.0

extension Duration {
    /// The duration in seconds.
    public var inSeconds: Double {
        let (seconds, attoseconds) = self.components
        return Double(seconds) + Double(attoseconds) * 1e-18
    }

    /// The duration in microseconds.
    public var inMicroseconds: Double { self.inSeconds * 1e6 }

    /// A number of seconds as a duration, to the nanosecond; from 0 to 9e9 seconds, beyond which it is cut.
    public static func fromSeconds(_ seconds: Double) -> Duration {
        .nanoseconds(Int64(min(max(seconds, 0), 9e9) * 1e9))
    }

    /// The duration in whole nanoseconds, cut to what 64 bits hold.
    public var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, carry) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000)
        return overflow || carry ? (seconds < 0 ? .min : .max) : sum
    }

    /// The duration in whole microseconds; 0 if it is negative.
    public var wholeMicroseconds: UInt64 { UInt64(max(0, self.wholeNanoseconds) / 1000) }
}
