// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes
import Testing

private let planned = SparseLayer(stack: .decoder, block: 3)

@Suite("Expert load")
struct ExpertLoadTests {
    private let start = ContinuousClock.now

    private func after(_ seconds: Double) -> ContinuousClock.Instant {
        self.start.advanced(by: .nanoseconds(Int64(seconds * 1e9)))
    }

    @Test("a constant rate is right from the second look, however irregular the looks")
    func constantRate() {
        var load = ExpertLoad(halfLife: .seconds(10))
        for second in [0, 1, 1.5, 4, 30, 31, 200] {
            load.counted([UInt64(20 * second), 0, UInt64(2 * second)], in: planned, now: self.after(second))
            guard second > 0 else { continue }
            let rates = load.rowsPerSecond(in: planned, now: self.after(second))
            #expect(abs(rates[0] - 20) < 1e-9)
            #expect(rates[1] == 0)
            #expect(abs(rates[2] - 2) < 1e-9)
        }
    }

    @Test("after a half-life without rows half of the average is left")
    func halfLife() {
        var load = ExpertLoad(halfLife: .seconds(10))
        load.counted([0], in: planned, now: self.start)
        load.counted([1_000_000], in: planned, now: self.after(1000))
        load.counted([1_000_000], in: planned, now: self.after(1010))
        let rate = load.rowsPerSecond(in: planned, now: self.after(1010))
        #expect(abs(rate[0] - 500) < 1e-6)
    }

    @Test("increments and counters agree on the same rows")
    func increments() {
        var increments = ExpertLoad(halfLife: .seconds(5))
        var counters = ExpertLoad(halfLife: .seconds(5))
        increments.add(0, of: 1, in: planned, now: self.start)
        counters.counted([0, 0], in: planned, now: self.start)
        for step in 1...2000 {
            let now = self.after(Double(step) * 0.01)
            increments.add(3, of: 1, in: planned, now: now)
            counters.counted([0, UInt64(3 * step)], in: planned, now: now)
        }
        let one = increments.rowsPerSecond(in: planned, now: self.after(20))
        let other = counters.rowsPerSecond(in: planned, now: self.after(20))
        #expect(abs(one[1] - 300) < 1)
        #expect(abs(other[1] - 300) < 1e-6)
        #expect(abs(increments.observedRows(in: planned) - counters.observedRows(in: planned)) < 5)
    }

    @Test("a restarted counter, an immediate second look and time going backwards do no harm")
    func oddities() {
        var load = ExpertLoad(halfLife: .seconds(5))
        load.counted([100], in: planned, now: self.start)
        load.counted([200], in: planned, now: self.start)
        #expect(load.rowsPerSecond(in: planned, now: self.start) == [0])
        load.counted([110], in: planned, now: self.after(1))
        let rates = load.rowsPerSecond(in: planned, now: self.after(1))
        #expect(abs(rates[0] - 10) < 1e-9)
        load.counted([5, 7], in: planned, now: self.after(2))
        let restarted = load.rowsPerSecond(in: planned, now: self.after(2))
        #expect(restarted.count == 2)
        #expect(restarted.allSatisfy { $0 > 0 && $0 < 10 })
        load.counted([1000, 1000], in: planned, now: self.after(-5))
        #expect(load.rowsPerSecond(in: planned, now: self.after(2)) == restarted)
        load.add(1, of: -1, in: planned, now: self.after(3))
        load.add(-4, of: 0, in: SparseLayer(stack: .encoder, block: 0), now: self.after(3))
        #expect(load.countedLayers == [SparseLayer(stack: .encoder, block: 0), planned])
        #expect(load.rowsPerSecond(in: SparseLayer(stack: .encoder, block: 9), now: self.start).isEmpty)
    }
}
