// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes

// Callers give deadlines on the language's clock. Inside, event loops count plain nanoseconds, which are cheaper to
// carry and to compare.

extension NIODeadline {
    /// The same point in time as an instant; what does not fit is the far future.
    init(_ instant: ContinuousClock.Instant) {
        let left = (instant - .now).wholeNanoseconds
        let now = NIODeadline.now().uptimeNanoseconds
        let (sum, overflow) = Int64(clamping: now).addingReportingOverflow(left)
        self = .uptimeNanoseconds(overflow ? UInt64(Int64.max) : UInt64(max(0, sum)))
    }

    /// The same point in time on the language's clock.
    var instant: ContinuousClock.Instant {
        .now.advanced(by: .nanoseconds((self - .now()).nanoseconds))
    }
}
