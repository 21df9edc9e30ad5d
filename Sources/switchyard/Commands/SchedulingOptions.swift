// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import GatewayServing
import ServiceKit

/// How a gateway schedules requests and computes.
struct SchedulingOptions: ParsableArguments {
    @Option(GatewaySettings.table.compute.threads) var threads: String?

    @Flag(GatewaySettings.table.compute.pinThreads) var pinThreads = false

    @Option(GatewaySettings.table.compute.spin) var spinUs: String?

    @Option(GatewaySettings.table.batchSlots) var batchSlots: String?

    @Option(GatewaySettings.table.queueLimit) var queueLimit: String?

    @Option(GatewaySettings.table.queueTimeout) var queueTimeoutMs: String?

    @Option(GatewaySettings.table.defaultPriority) var defaultPriority: String?

    @Option(GatewaySettings.table.callerShare) var callerShare: String?

    @Option(GatewaySettings.table.guestSlots) var guestSlots: String?

    @Option(GatewaySettings.table.encodeTokens) var encodeTokens: String?

    @Option(GatewaySettings.table.encodeTimePerStep) var encodeMsPerStep: String?

    @Option(GatewaySettings.table.overlap) var overlap: String?
}
