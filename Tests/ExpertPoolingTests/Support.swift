// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

extension ExpertPoolsConfiguration {
    /// The defaults, but no call is audited: tests that count calls want no others.
    static let unaudited: ExpertPoolsConfiguration = {
        var configuration = ExpertPoolsConfiguration.defaults
        configuration.auditFraction = 0
        return configuration
    }()
}

/// The start of virtual time.
let start = ContinuousClock.now
let encoderLayer = SparseLayer(stack: .encoder, block: 1)
let decoderLayer = SparseLayer(stack: .decoder, block: 3)

func seconds(_ value: Double) -> ContinuousClock.Instant {
    start.advanced(by: .microseconds(Int64(value * 1e6)))
}

func replica(_ port: Int, pool: String = "a") -> ReplicaID {
    ReplicaID(pool: pool, host: "h", port: port)
}

func description(_ experts: Set<Int> = [0, 1], fingerprint: UInt64 = 7, zone: String? = nil) -> ReplicaDescription {
    ReplicaDescription(
        fingerprint: fingerprint,
        experts: [encoderLayer: experts, decoderLayer: experts],
        modelWidth: 16,
        zone: zone
    )
}

/// Pools with verified replicas: of one pool "a" that holds experts 0 and 1.
func machine(
    ports: [Int] = [1, 2],
    placement: Bool = true,
    configuration: ExpertPoolsConfiguration = .unaudited
) -> ExpertPools {
    var table = PlacementTable()
    for layer in [encoderLayer, decoderLayer] {
        table.place(0, of: layer, on: "a")
        table.place(1, of: layer, on: "a")
    }
    var pools = ExpertPools(
        configuration: configuration,
        fingerprint: 7,
        modelWidth: 16,
        placement: placement ? table : nil,
        seed: 1
    )
    for port in ports { join(&pools, replica(port)) }
    return pools
}

func join(_ pools: inout ExpertPools, _ id: ReplicaID, _ text: ReplicaDescription = description()) {
    pools.added(id)
    #expect(pools.connected(id) == [.describe(id)])
    #expect(pools.described(id, text, now: start) == [.joined(id)])
}

extension ExpertPools {
    /// Chooses a replica by name.
    mutating func choose(
        _ pool: String = "a",
        excluding excluded: [ReplicaID] = [],
        now: ContinuousClock.Instant = start
    ) -> Result<ReplicaID, NoReplica> {
        let slots = excluded.compactMap { self.slot(of: $0) }
        let load = CallLoad(rows: 1, work: ExpertWork.of(rows: 1))
        return
            self.startAttempt(
                in: self.poolIndex(of: pool),
                excluding: ShortList(contentsOf: slots),
                load: load,
                now: now
            )
            .map { self.replicas[$0].id }
    }

    /// Ends an attempt that took some time.
    mutating func end(
        _ id: ReplicaID,
        _ outcome: AttemptOutcome,
        stack: Stack = .encoder,
        rows: Int = 1,
        in time: Duration = .milliseconds(1),
        now: ContinuousClock.Instant = start
    ) -> [PoolAction] {
        guard let slot = self.slot(of: id) else { return [] }
        let kind = CallClass(stack: stack, rows: rows)
        let began = now.advanced(by: .zero - time)
        return self.attemptEnded(
            AttemptEnd(
                slot: slot,
                kind: kind,
                rows: rows,
                work: ExpertWork.of(rows: rows),
                started: began,
                ended: now,
                outcome: outcome
            )
        )
    }

    mutating func succeed(_ id: ReplicaID, in time: Duration = .milliseconds(1), rows: Int = 1) -> [PoolAction] {
        self.end(id, .answered, rows: rows, in: time)
    }

    mutating func fail(
        _ id: ReplicaID,
        _ failure: CallFailure,
        now: ContinuousClock.Instant = start
    ) -> [PoolAction] {
        self.end(id, .failed(failure), now: now)
    }

    mutating func cancel(_ id: ReplicaID) {
        #expect(self.end(id, .cancelled).isEmpty)
    }

    func state(_ id: ReplicaID) -> ReplicaState? {
        self.reports.first { $0.id == id }?.state
    }
}

/// SplitMix64, so that a failing simulation can be repeated.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
