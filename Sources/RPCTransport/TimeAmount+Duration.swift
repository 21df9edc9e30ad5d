// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes

extension Duration {
    /// The duration as event loops count it; less than nothing becomes nothing.
    var timeAmount: TimeAmount {
        .nanoseconds(Swift.max(0, self.wholeNanoseconds))
    }
}
