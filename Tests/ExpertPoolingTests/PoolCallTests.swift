// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import RPCCore
import Testing

private let start = ContinuousClock.now
private let deadline = start.advanced(by: .milliseconds(100))
private let layer = ExpertLayer(isDecoder: true, block: 3)

private func serving(_ count: Int, configuration: ExpertPoolsConfiguration = .defaults) -> ExpertPools {
    var table = PlacementTable()
    table.place(0, of: layer, on: "a")
    var pools = ExpertPools(configuration: configuration, fingerprint: 1, modelWidth: 4, placement: table)
    for port in 1...max(1, count) where count > 0 {
        let id = ReplicaID(pool: "a", host: "h", port: port)
        pools.added(id)
        _ = pools.connected(id)
        _ = pools.described(id, ReplicaDescription(fingerprint: 1, experts: [layer: [0]], modelWidth: 4))
    }
    return pools
}

@Suite("Calls to a pool")
struct PoolCallTests {
    @Test("a call that fails is tried once more, on another replica", arguments: CallFailure.allKinds)
    func retry(failure: CallFailure) throws {
        var pools = serving(3)
        var generator = SystemRandomNumberGenerator()
        var call = PoolCall(pool: "a", deadline: deadline)
        guard case .send(let first) = pools.start(&call, now: start, using: &generator) else {
            Issue.record("no replica was chosen")
            return
        }
        let second = pools.attemptFailed(of: &call, on: first, failure, now: start, using: &generator)
        guard case .send(let other) = second.decision else {
            Issue.record("the call was not tried again")
            return
        }
        #expect(other != first)
        #expect(call.tried == [first, other])
        let third = pools.attemptFailed(of: &call, on: other, failure, now: start, using: &generator)
        #expect(third.decision == .drop(failure.dropCause))
        #expect(pools.reports.allSatisfy { $0.outstanding == 0 })
    }

    @Test("nothing is sent when the layer's deadline has passed")
    func deadlinePassed() {
        var pools = serving(2)
        var generator = SystemRandomNumberGenerator()
        var late = PoolCall(pool: "a", deadline: start)
        #expect(pools.start(&late, now: start, using: &generator) == .drop(.timeout))
        var call = PoolCall(pool: "a", deadline: deadline)
        guard case .send(let first) = pools.start(&call, now: start, using: &generator) else {
            Issue.record("no replica was chosen")
            return
        }
        let next = pools.attemptFailed(of: &call, on: first, .unavailable, now: deadline, using: &generator)
        #expect(next.decision == .drop(.timeout))
    }

    @Test("without another replica the rows are dropped for the reason of the failure")
    func noOtherReplica() {
        var pools = serving(1)
        var generator = SystemRandomNumberGenerator()
        var call = PoolCall(pool: "a", deadline: deadline)
        guard case .send(let first) = pools.start(&call, now: start, using: &generator) else {
            Issue.record("no replica was chosen")
            return
        }
        let next = pools.attemptFailed(of: &call, on: first, .overloaded, now: start, using: &generator)
        #expect(next.decision == .drop(.overloaded))
        #expect(next.actions.isEmpty)
    }

    @Test("a pool without a replica drops, and a busy one says so")
    func noReplica() {
        var generator = SystemRandomNumberGenerator()
        var empty = serving(0)
        var call = PoolCall(pool: "a", deadline: deadline)
        #expect(empty.start(&call, now: start, using: &generator) == .drop(.unavailable))
        #expect(call.tried.isEmpty)

        var configuration = ExpertPoolsConfiguration.defaults
        configuration.outstandingPerReplica = 1
        var pools = serving(1, configuration: configuration)
        _ = pools.start(&call, now: start, using: &generator)
        var second = PoolCall(pool: "a", deadline: deadline)
        #expect(pools.start(&second, now: start, using: &generator) == .drop(.overloaded))
    }

    @Test("the failure that ejects is told with the decision")
    func ejectionWithDecision() {
        var pools = serving(2)
        var generator = SystemRandomNumberGenerator()
        var ejected: [PoolAction] = []
        for _ in 0..<3 {
            var call = PoolCall(pool: "a", deadline: deadline)
            // Keep the second replica busier, so that the first is chosen.
            let first = ReplicaID(pool: "a", host: "h", port: 1)
            while case .send(let chosen) = pools.start(&call, now: start, using: &generator), chosen != first {
                call = PoolCall(pool: "a", deadline: deadline)
            }
            ejected += pools.attemptFailed(of: &call, on: first, .badReply, now: start, using: &generator).actions
        }
        #expect(ejected.count == 1)
        #expect(pools.reports[0].state == .ejected(until: start.advanced(by: .milliseconds(500))))
    }

    @Test(
        "statuses are told apart",
        arguments: [
            (Status.Code.deadlineExceeded, CallFailure.deadline), (.unavailable, .unavailable),
            (.resourceExhausted, .overloaded), (.failedPrecondition, .refused), (.internal, .refused),
        ]
    )
    func statuses(code: Status.Code, failure: CallFailure) {
        #expect(CallFailure(code) == failure)
    }
}

extension CallFailure {
    fileprivate static let allKinds: [CallFailure] = [.deadline, .unavailable, .overloaded, .badReply, .refused]
}
