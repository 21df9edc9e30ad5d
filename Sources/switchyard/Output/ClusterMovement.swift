// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos

/// What a cluster did between two looks at it.
struct ClusterMovement {
    /// Counters of one host.
    struct Host: Hashable {
        var address: String
        var calls: UInt64
        var rows: UInt64
        var failures: UInt64
    }

    /// Seconds between the looks; 0 for the first one, whose counts are those since the gateway's start.
    let seconds: Double
    /// Whether the gateway began anew in between, so that counts are those since then.
    let isRestarted: Bool
    private(set) var decodedTokens: UInt64 = 0
    private(set) var steps: UInt64 = 0
    private(set) var routedTokens: UInt64 = 0
    private(set) var droppedTokens: UInt64 = 0
    private(set) var hedges: UInt64 = 0
    private(set) var retries: UInt64 = 0
    /// Hosts by address.
    private(set) var hosts: [String: Host] = [:]
    /// Rows of each sparse layer's experts, in the cluster's order.
    private(set) var layers: [[UInt64]] = []

    /// Compares two looks.
    ///
    /// - Parameters:
    ///   - now: The cluster now.
    ///   - before: The cluster before; nil for a first look.
    ///   - seconds: Seconds in between.
    init(_ now: ClusterDescription, since before: ClusterDescription?, seconds: Double) {
        let uptime = now.gateway?.uptimeSeconds ?? 0
        let isSame =
            before.map { before in
                before.modelFingerprint == now.modelFingerprint && (before.gateway?.uptimeSeconds ?? 0) <= uptime
                    && (before.gateway?.steps ?? 0) <= (now.gateway?.steps ?? 0)
            } ?? false
        let old = isSame ? before : nil
        self.isRestarted = before != nil && !isSame
        self.seconds = isSame ? max(seconds, 0) : Double(uptime)
        func grown(_ count: UInt64, _ earlier: UInt64?) -> UInt64 {
            count >= (earlier ?? 0) ? count - (earlier ?? 0) : count
        }
        self.decodedTokens = grown(now.gateway?.decodedTokens ?? 0, old?.gateway?.decodedTokens)
        self.steps = grown(now.gateway?.steps ?? 0, old?.gateway?.steps)
        self.routedTokens = grown(now.routedTokens, old?.routedTokens)
        self.droppedTokens = grown(Self.dropped(now), old.map(Self.dropped))
        self.hedges = grown(now.pools.reduce(0) { $0 + $1.hedges }, old?.pools.reduce(0) { $0 + $1.hedges })
        self.retries = grown(now.pools.reduce(0) { $0 + $1.retries }, old?.pools.reduce(0) { $0 + $1.retries })
        var earlier: [String: ReplicaDescription] = [:]
        for replica in old?.pools.flatMap(\.replicas) ?? [] { earlier[replica.address] = replica }
        for replica in now.pools.flatMap(\.replicas) {
            let last = earlier[replica.address]
            self.hosts[replica.address] = Host(
                address: replica.address,
                calls: grown(replica.calls, last?.calls),
                rows: grown(replica.rows, last?.rows),
                failures: grown(replica.failures, last?.failures)
            )
        }
        self.layers = now.expertLoad.map { layer in
            let last = old?.expertLoad.first { $0.stack == layer.stack && $0.layer == layer.layer }?.rows ?? []
            return layer.rows.enumerated().map { grown($1, $0 < last.count ? last[$0] : nil) }
        }
    }

    /// A count as a rate, for people; empty where no time has passed.
    ///
    /// - Parameter count: How many.
    /// - Returns: How many in a second, with a digit behind the point below 100.
    func rate(_ count: UInt64) -> String {
        guard self.seconds > 0 else { return "" }
        let rate = Double(count) / self.seconds
        let tenths = (rate * 10).rounded() / 10
        return rate < 100 ? "\(tenths)" : "\(Int(rate.rounded()))"
    }

    private static func dropped(_ cluster: ClusterDescription) -> UInt64 {
        cluster.dropped.reduce(0) { $0 + $1.tokens }
    }
}
