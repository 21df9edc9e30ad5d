// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import Testing

@testable import BatchScheduling
@testable import ExpertServing

/// Some gateways that decode on one host, in virtual time: the host runs the machine that real hosts run.
private struct Simulation {
    /// The result of a run.
    struct Outcome: Equatable {
        /// Steps of all gateways per second.
        var stepsPerSecond: Double
        var callsPerPass: Double
        /// Experts whose weights were read, for each token row.
        var readsPerRow: Double
        /// Steps of the gateway that made the fewest, over those of the one that made the most.
        var fairness: Double
    }

    private enum Event {
        case call(Int)
        case passEnds
        case look
    }

    var gateways = 2
    var rows = 8
    var layers = 6
    var experts = 8
    /// Time that a gateway spends between two sparse layers, plus or minus a tenth.
    var gatewayTime = Duration.microseconds(500)
    /// Time to read one expert's weights, and to compute one row.
    var readTime = Duration.microseconds(400)
    var rowTime = Duration.microseconds(20)
    var window = Duration.zero
    var batchRows = 1024

    func run(for length: Duration = .seconds(2)) -> Outcome {
        var random = SplitMix(state: 7)
        let start = ContinuousClock.now
        var machine = HostAdmission(
            limits: .init(calls: 256, rows: 65_536),
            batching: .init(rows: self.batchRows, window: self.window)
        )
        var events: [(time: ContinuousClock.Instant, order: Int, event: Event)] = []
        var order = 0
        func schedule(_ event: Event, at time: ContinuousClock.Instant) {
            order += 1
            events.append((time, order, event))
        }
        func pause() -> Duration { self.gatewayTime * (0.9 + 0.2 * random.fraction()) }
        var layer = [Int](repeating: 0, count: self.gateways)
        var waiting: [HostAdmission.CallID: (gateway: Int, experts: Set<Int>)] = [:]
        var pass: HostAdmission.Pass?
        var reads = 0
        for gateway in 0..<self.gateways {
            schedule(.call(gateway), at: start.advanced(by: .microseconds(310 * gateway)))
        }
        var now = start
        func look() {
            guard pass == nil else { return }
            switch machine.next(now: now).step {
            case .compute(let next):
                let distinct = next.calls.reduce(into: Set<Int>()) { $0.formUnion(waiting[$1]?.experts ?? []) }
                reads = distinct.count
                pass = next
                schedule(.passEnds, at: now.advanced(by: self.readTime * reads + self.rowTime * next.rows))
            case .wait(let until):
                if let until { schedule(.look, at: until) }
            case .leave:
                break
            }
        }
        while let next = events.indices.min(by: {
            (events[$0].time, events[$0].order) < (events[$1].time, events[$1].order)
        }),
            start.duration(to: events[next].time) < length
        {
            let (time, _, event) = events.remove(at: next)
            now = time
            switch event {
            case .call(let gateway):
                let chosen = Set((0..<self.rows).map { _ in Int(random.next() % UInt64(self.experts)) })
                let call = HostAdmission.Call(
                    source: "\(gateway)",
                    layer: .of(layer[gateway] % self.layers),
                    rows: self.rows,
                    experts: chosen.count
                )
                if case .queue(let id) = machine.arrived(call, now: now) {
                    waiting[id] = (gateway, chosen)
                }
            case .passEnds:
                machine.finished(expertReads: reads, now: now)
                for id in pass?.calls ?? [] {
                    guard let gateway = waiting.removeValue(forKey: id)?.gateway else { continue }
                    layer[gateway] += 1
                    schedule(.call(gateway), at: now.advanced(by: pause()))
                }
                pass = nil
            case .look:
                break
            }
            look()
            #expect(machine.checkInvariants() == nil)
        }
        let seconds = length / .seconds(1)
        let totals = machine.totals
        return Outcome(
            stepsPerSecond: Double(layer.reduce(0, +)) / Double(self.layers) / seconds,
            callsPerPass: Double(totals.calls) / Double(totals.passes),
            readsPerRow: Double(totals.expertReads) / Double(totals.rows),
            fairness: Double(layer.min() ?? 0) / Double(layer.max() ?? 1)
        )
    }
}

/// Sebastiano Vigna's SplitMix64 (https://prng.di.unimi.it/splitmix64.c), for repeatable runs.
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func fraction() -> Double { Double(self.next() >> 11) / Double(1 << 53) }
}

@Suite
struct HostBatchingSimulationTests {
    @Test("If reading weights takes most of a pass, gateways that meet get more steps from a host")
    func gain() {
        var simulation = Simulation(gateways: 4)
        let together = simulation.run()
        simulation.batchRows = 1
        let alone = simulation.run()
        print("4 gateways, one pass a call:  \(alone)\n4 gateways, passes together:  \(together)")
        #expect(alone.callsPerPass == 1)
        #expect(together.callsPerPass > 1.5)
        #expect(together.readsPerRow < 0.75 * alone.readsPerRow)
        #expect(together.stepsPerSecond > 1.3 * alone.stepsPerSecond)
        #expect(together.fairness > 0.95)
    }

    @Test("A window changes nothing for a lone gateway")
    func lone() {
        var simulation = Simulation(gateways: 1)
        let without = simulation.run()
        simulation.window = .milliseconds(5)
        let with = simulation.run()
        #expect(with == without)
    }

    @Test("A window brings together gateways that would take turns, even just two")
    func meeting() {
        for gateways in [2, 4] {
            var simulation = Simulation(gateways: gateways)
            let without = simulation.run()
            simulation.window = .milliseconds(1)
            let with = simulation.run()
            print("\(gateways) gateways, no window: \(without)\n\(gateways) gateways, 1 ms:      \(with)")
            #expect(with.callsPerPass > 0.9 * Double(gateways))
            #expect(with.stepsPerSecond > 1.15 * without.stepsPerSecond)
            #expect(with.fairness > 0.95)
        }
    }

    @Test("A window costs next to nothing for gateways that a host does not hold up", arguments: [1, 2, 3])
    func idleHost(gateways: Int) {
        var simulation = Simulation(gateways: gateways)
        simulation.gatewayTime = .milliseconds(15)
        let without = simulation.run()
        simulation.window = .milliseconds(1)
        let with = simulation.run()
        #expect(with.stepsPerSecond > 0.95 * without.stepsPerSecond)
    }
}
