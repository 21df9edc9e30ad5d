// SPDX-License-Identifier: Apache-2.0

/// What all calls of a channel share.
final class ClientCallConfiguration: Sendable {
    let limits: TransportLimits
    let compression: MessageCompression
    let retry: RetryBudget

    init(limits: TransportLimits, compression: MessageCompression, retry: RetryBudget) {
        self.limits = limits
        self.compression = compression
        self.retry = retry
    }
}
