// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardProtos
import SwitchyardTypes

/// What `status --json` prints: a cluster with every host and every expert.
struct ClusterStatus: Encodable {
    struct Model: Encodable {
        var name: String
        var fingerprint: String
        var encoderBlocks: UInt32
        var decoderBlocks: UInt32
        var expertsPerLayer: UInt32
        var modelWidth: UInt32
        var weights: String?
    }

    struct Gateway: Encodable {
        var complete: Bool
        var draining: Bool
        var queued: UInt32
        var queueLimit: UInt32
        var usedSlots: UInt32
        var batchSlots: UInt32
        var decodedTokens: UInt64
        var steps: UInt64
        var uptimeSeconds: UInt64
        var rowType: String?
    }

    struct Host: Encodable {
        var address: String
        var zone: String
        var state: String
        var detail: String
        var weights: String?
        var calls: UInt64
        var rows: UInt64
        var failures: UInt64
        var ejections: UInt64
        var latencyP50Microseconds: UInt64
        var latencyP99Microseconds: UInt64
    }

    struct Pool: Encodable {
        var name: String
        var experts: [UInt32]
        var calls: UInt64
        var hedges: UInt64
        var hedgesWon: UInt64
        var retries: UInt64
        var droppedRows: UInt64
        var hosts: [Host]
    }

    struct Layer: Encodable {
        var stack: String
        var layer: UInt32
        /// Rows by expert index.
        var rows: [UInt64]
    }

    struct Drop: Encodable {
        var stack: String
        var layer: UInt32
        var reason: String
        var tokens: UInt64
    }

    var model: Model
    var gateway: Gateway
    var pools: [Pool]
    var layers: [Layer]
    var routedTokens: UInt64
    var dropped: [Drop]

    /// Converts a gateway's description.
    init(model: ModelDescription, cluster: ClusterDescription) {
        let load = cluster.gateway ?? GatewayLoad()
        self.model = Model(
            name: model.name,
            fingerprint: model.fingerprint.fingerprintText,
            encoderBlocks: model.encoderBlocks,
            decoderBlocks: model.decoderBlocks,
            expertsPerLayer: model.expertsPerLayer,
            modelWidth: model.modelWidth,
            weights: model.weightDType.type?.description
        )
        self.gateway = Gateway(
            complete: cluster.complete,
            draining: load.draining,
            queued: load.queued,
            queueLimit: load.queueLimit,
            usedSlots: load.usedSlots,
            batchSlots: load.batchSlots,
            decodedTokens: load.decodedTokens,
            steps: load.steps,
            uptimeSeconds: load.uptimeSeconds,
            rowType: cluster.rowDType.type?.description
        )
        self.pools = cluster.pools.map(Pool.init)
        self.layers = cluster.expertLoad.map { Layer(stack: "\($0.stack)", layer: $0.layer, rows: $0.rows) }
        self.routedTokens = cluster.routedTokens
        self.dropped = cluster.dropped.map {
            Drop(
                stack: "\($0.stack)",
                layer: $0.layer,
                reason: GenerationReport.protocolName($0.reason),
                tokens: $0.tokens
            )
        }
    }

    /// The status as JSON, keys in snake case and in order.
    ///
    /// - Parameter isPretty: Whether it takes several lines.
    /// - Returns: JSON.
    /// - Throws: Never for a status of a cluster.
    func json(isPretty: Bool = true) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if isPretty { encoder.outputFormatting.insert(.prettyPrinted) }
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}

extension ClusterStatus.Pool {
    fileprivate init(_ pool: PoolDescription) {
        self.init(
            name: pool.name,
            experts: pool.experts.first?.experts ?? [],
            calls: pool.calls,
            hedges: pool.hedges,
            hedgesWon: pool.hedgesWon,
            retries: pool.retries,
            droppedRows: pool.droppedRows,
            hosts: pool.replicas.map { replica in
                ClusterStatus.Host(
                    address: replica.address,
                    zone: replica.zone,
                    state: "\(replica.state)",
                    detail: replica.detail,
                    weights: replica.weightDType.type?.description,
                    calls: replica.calls,
                    rows: replica.rows,
                    failures: replica.failures,
                    ejections: replica.ejections,
                    latencyP50Microseconds: replica.latencyP50Microseconds,
                    latencyP99Microseconds: replica.latencyP99Microseconds
                )
            }
        )
    }
}
