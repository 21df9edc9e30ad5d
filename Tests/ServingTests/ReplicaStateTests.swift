// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardProtos
import Testing

@testable import GatewayServing

@Suite("The state of a replica")
struct ReplicaStateTests {
    private static let states: [ExpertPooling.ReplicaState] = [
        .disconnected, .unverified, .ready, .ejected(until: .now), .probing, .draining, .mismatched("another model"),
        .spare(of: ReplicaID(pool: "pool-0", host: "h", port: 1)), .quarantined,
    ]

    @Test("has the same name in the machine, in metrics and on the wire", arguments: Self.states)
    func words(state: ExpertPooling.ReplicaState) {
        #expect(state.name == "\(state.message.state)")
        #expect(ExpertPooling.ReplicaState.names.contains(state.name))
        #expect(state.message.detail.isEmpty == (state == .ready))
    }

    @Test("has all names of the wire contract, in its order")
    func complete() {
        let wire = SwitchyardProtos.ReplicaState.allCases.filter { $0 != .unspecified }
        #expect(ExpertPooling.ReplicaState.names == wire.map { "\($0)" })
        #expect(Set(Self.states.map(\.name)) == Set(ExpertPooling.ReplicaState.names))
    }
}
