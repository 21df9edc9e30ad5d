// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@Suite("Bytes of requests that no handler has taken")
struct ReceiveBudgetTests {
    private static let second: UInt64 = 1_000_000_000

    @Test("the call whose bytes have been held longest, weighed by their number, is the one to end")
    func victim() {
        var budget = ReceiveBudget(limitBytes: 100, stepBytes: 10)
        _ = budget.changed(1, to: 40, now: 0)
        _ = budget.changed(3, to: 1, now: 0)
        #expect(budget.callToEnd(now: Self.second) == nil)
        // Larger than the first, and just begun.
        _ = budget.changed(5, to: 80, now: Self.second)
        #expect(budget.callToEnd(now: Self.second) == 1)
        _ = budget.changed(1, to: 0, now: Self.second)
        #expect(budget.heldBytes == 81 && budget.callToEnd(now: Self.second) == nil)
        // Of those that have just come the larger one, and before them a byte of a second ago.
        _ = budget.changed(7, to: 90, now: Self.second)
        #expect(budget.callToEnd(now: Self.second) == 3)
        _ = budget.changed(3, to: 0, now: Self.second)
        #expect(budget.callToEnd(now: Self.second) == 7)
        #expect(budget.checkInvariants() == nil)
    }

    @Test("a handler that takes messages keeps its call young")
    func taken() {
        var budget = ReceiveBudget(limitBytes: 100, stepBytes: 10)
        _ = budget.changed(1, to: 60, now: 0)
        _ = budget.changed(1, to: 50, now: 10 * Self.second)
        _ = budget.changed(3, to: 60, now: 9 * Self.second)
        #expect(budget.callToEnd(now: 10 * Self.second) == 3)
    }

    @Test("a call that is alone is never ended, however much it holds")
    func alone() {
        var budget = ReceiveBudget(limitBytes: 10, stepBytes: 1)
        _ = budget.changed(1, to: 1_000, now: 0)
        #expect(budget.callToEnd(now: Self.second) == nil)
        _ = budget.changed(3, to: 1, now: 0)
        #expect(budget.callToEnd(now: Self.second) == 1)
    }

    @Test("the server is told in steps, and of the end")
    func reports() {
        var budget = ReceiveBudget(limitBytes: 1_000, stepBytes: 100)
        var isDue = budget.changed(1, to: 99, now: 5)
        #expect(!isDue)
        isDue = budget.changed(3, to: 1, now: 5)
        #expect(isDue)
        let report = budget.report(now: 5)
        #expect(report.bytes == 100 && report.costliest == HeldBytes(bytes: 99, since: 5))
        isDue = budget.changed(1, to: 198, now: 5) || budget.changed(3, to: 0, now: 5)
        #expect(!isDue)
        isDue = budget.changed(1, to: 0, now: 5)
        #expect(isDue && budget.report(now: 5).bytes == 0 && budget.reportedBytes == 0)
        // What the server never heard of need not be taken back.
        isDue = budget.changed(1, to: 50, now: 5) || budget.changed(1, to: 0, now: 5)
        #expect(!isDue)
    }

    @Test("over the server's limit, connections end calls until the rest fits, each only once before it reports")
    func shared() {
        let pool = Pool()
        let old = HeldBytes(bytes: 50, since: 0)
        #expect(pool.told(1, 60, old, at: 0) == [])
        #expect(pool.told(2, 40, HeldBytes(bytes: 40, since: 90), at: 100) == [])
        #expect(pool.told(3, 20, HeldBytes(bytes: 20, since: 100), at: 100_000) == [1])
        #expect(pool.checkInvariants() == nil)
        // The first has not answered, and the second has to make room for more.
        #expect(pool.told(3, 60, HeldBytes(bytes: 60, since: 100_000), at: 100_000) == [2])
        #expect(pool.told(1, 10, old, at: 100_000) == [])
        pool.budget.forget(2)
        #expect(pool.checkInvariants() == nil)
        #expect(pool.budget.heldBytes == 70)
    }

    /// A budget that expectations can change.
    private final class Pool {
        var budget = SharedReceiveBudget(limitBytes: 100)

        func told(_ connection: Int, _ bytes: Int, _ costliest: HeldBytes, at now: UInt64) -> [Int] {
            self.budget.reported(connection, bytes: bytes, costliest: costliest, now: now)
        }

        func checkInvariants() -> String? { self.budget.checkInvariants() }
    }

    /// Connections as a server runs them: each ends calls by itself, and later those that the pool names.
    private struct Server {
        var pool: SharedReceiveBudget
        var connections: [Int: ReceiveBudget] = [:]
        var named: [Int] = []

        mutating func report(_ id: Int, now: UInt64) {
            guard let report = self.connections[id]?.report(now: now) else { return }
            self.named += self.pool.reported(id, bytes: report.bytes, costliest: report.costliest, now: now)
        }

        mutating func change(_ id: Int, _ call: Int32, to bytes: Int, now: UInt64) {
            var mustReport = self.connections[id]?.changed(call, to: bytes, now: now) ?? false
            while let victim = self.connections[id]?.callToEnd(now: now) {
                mustReport = self.connections[id]?.changed(victim, to: 0, now: now) ?? false || mustReport
            }
            if mustReport { self.report(id, now: now) }
        }

        /// One of the connections that were named does what it was told.
        mutating func endOne(_ index: Int, now: UInt64) {
            let id = self.named.remove(at: index)
            if let worst = self.connections[id]?.costliest(now: now) {
                _ = self.connections[id]?.changed(worst.call, to: 0, now: now)
            }
            self.report(id, now: now)
        }
    }

    @Test("whatever clients do, every budget is kept and recovers", arguments: 0..<40)
    func anything(seed: Int) {
        var random = SplitMix(seed: UInt64(seed))
        let count = Int.random(in: 1...6, using: &random)
        let step = Int.random(in: 1...50, using: &random)
        let limit = Int.random(in: 100...2_000, using: &random)
        var server = Server(pool: SharedReceiveBudget(limitBytes: limit))
        for id in 0..<count { server.connections[id] = ReceiveBudget(limitBytes: limit / 2, stepBytes: step) }
        for turn in 0..<3_000 {
            let now = UInt64(turn) * UInt64.random(in: 1...1_000, using: &random)
            let id = Int.random(in: 0..<count, using: &random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                server.pool.forget(id)
                server.named.removeAll { $0 == id }
                server.connections[id] = ReceiveBudget(limitBytes: limit / 2, stepBytes: step)
            case 1..<5 where !server.named.isEmpty:
                server.endOne(Int.random(in: 0..<server.named.count, using: &random), now: now)
            default:
                let call = Int32.random(in: 0..<12, using: &random)
                server.change(id, call, to: Int.random(in: 0...limit / 3, using: &random), now: now)
            }
            #expect(server.pool.checkInvariants() == nil)
            for connection in server.connections.values {
                #expect(connection.checkInvariants() == nil)
                #expect(connection.heldBytes <= limit / 2 || connection.callCount == 1)
                #expect(abs(connection.heldBytes - connection.reportedBytes) <= step)
            }
        }
        while !server.named.isEmpty { server.endOne(0, now: .max) }
        let held = server.connections.values.reduce(0) { $0 + $1.heldBytes }
        #expect(server.pool.heldBytes <= limit && held <= limit + count * step)
    }
}
