// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes

extension Duration {
    /// The duration as event loops count it; negative becomes zero.
    var timeAmount: TimeAmount {
        .nanoseconds(Swift.max(0, self.wholeNanoseconds))
    }
}
