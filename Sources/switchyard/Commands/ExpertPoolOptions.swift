// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import GatewayServing
import ServiceKit
import SwitchyardTypes

/// How a gateway uses its expert pools: deadlines, hedges, retries, zones.
struct ExpertPoolOptions: ParsableArguments {
    @Option(GatewaySettings.table.pools.encoderDeadline) var encoderDeadlineMs: String?

    @Option(GatewaySettings.table.pools.decoderDeadline) var decoderDeadlineMs: String?

    @Option(GatewaySettings.table.pools.layerDeadline) var layerDeadline: [String] = []

    @Option(GatewaySettings.table.pools.encoderDeadlineMultiple) var encoderDeadlineMultiple: String?

    @Option(GatewaySettings.table.pools.decoderDeadlineMultiple) var decoderDeadlineMultiple: String?

    @Option(GatewaySettings.table.pools.shortestDeadline) var shortestDeadlineMs: String?

    @Option(GatewaySettings.table.pools.encoderPatience) var encoderPatienceMs: String?

    @Option(GatewaySettings.table.pools.decoderPatience) var decoderPatienceMs: String?

    @Option(GatewaySettings.table.pools.attempts) var attempts: String?

    @Option(GatewaySettings.table.pools.hedgePercent) var hedgePercent: String?

    @Option(GatewaySettings.table.pools.auditPercent) var auditPercent: String?

    @Option(GatewaySettings.table.pools.auditProofs) var auditProofs: String?

    @Option(GatewaySettings.table.pools.auditMemory) var auditMemoryBytes: String?

    @Option(GatewaySettings.table.pools.callsPerReplica) var callsPerReplica: String?

    @Option(GatewaySettings.table.pools.replicaChoice) var replicaChoice: String?

    @Option(GatewaySettings.table.pools.affinityBound) var affinityBound: String?

    @Option(GatewaySettings.table.pools.zone) var zone: String?

    @Flag(GatewaySettings.table.pools.mixedWeightTypes) var mixedWeightTypes = false

    @Option(GatewaySettings.table.pools.lookup) var lookupSeconds: String?

    @Option(GatewaySettings.table.pools.sockets) var expertSockets: String?

    @Flag(GatewaySettings.table.pools.replicateHotExperts) var replicateHotExperts = false
}
