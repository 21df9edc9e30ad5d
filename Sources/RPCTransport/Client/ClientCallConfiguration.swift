// SPDX-License-Identifier: Apache-2.0

/// What all calls of a channel share.
final class ClientCallConfiguration: Sendable {
    let limits: TransportLimits
    let compressionLog: CompressionLog?
    let retry: SharedRetryBudget
    let stages: CallStages?

    init(
        limits: TransportLimits,
        compressionLog: CompressionLog?,
        retry: SharedRetryBudget,
        stages: CallStages? = nil
    ) {
        self.limits = limits
        self.compressionLog = compressionLog
        self.retry = retry
        self.stages = stages
    }
}
