// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import BatchScheduling
@testable import ExpertServing

/// A gateway that decodes and a trainer on one host, in virtual time: the host runs the machine that real hosts run.
private struct Simulation {
    /// What it took both.
    struct Outcome: Equatable {
        /// A step of the gateway.
        var medianStep = Duration.zero
        var slowestStep = Duration.zero
        /// A call of the trainer, from one to the next.
        var trainerCall = Duration.zero
    }

    /// Who calls for what.
    private struct Caller {
        let source: String
        let kind: HostAdmission.Kind
        let rows: Int
        /// Time of a pass for its call.
        let pass: Duration
        /// Time from an answer to its next call, plus or minus a tenth.
        let think: Duration
        var begin: ContinuousClock.Instant
        var calls = 0
        var times: [Duration] = []
    }

    var serves = true
    var trains = true
    /// Time between two pauses of a trainer's pass; nil for none.
    var distance: Duration?
    var length = Duration.seconds(20)
    var layers = 6
    var gatewayTime: Duration
    var servedPass: Duration
    var trainerTime: Duration
    var trainingPass: Duration

    /// A decode step of switch-base-8's shape on one thread takes some 40 ms, 8 of them in hosts; a trainer's call takes 100 ms.
    static let large = Simulation(
        gatewayTime: .microseconds(5000),
        servedPass: .microseconds(1400),
        trainerTime: .milliseconds(150),
        trainingPass: .milliseconds(100)
    )

    /// The miniature: steps of 0.6 ms, and calls of 5 ms.
    static let small = Simulation(
        length: .seconds(2),
        layers: 2,
        gatewayTime: .microseconds(250),
        servedPass: .microseconds(50),
        trainerTime: .milliseconds(20),
        trainingPass: .milliseconds(5)
    )

    func run() -> Outcome {
        var machine = HostAdmission(limits: .init(calls: 256, rows: 65_536))
        let start = ContinuousClock.now
        var now = start
        var random = SplitMix(state: 11)
        var callers: [Caller] = []
        if self.serves {
            let gateway = Caller(
                source: "gateway",
                kind: .serving,
                rows: 1,
                pass: self.servedPass,
                think: self.gatewayTime,
                begin: start
            )
            callers.append(gateway)
        }
        if self.trains {
            let trainer = Caller(
                source: "trainer",
                kind: .gradients,
                rows: 2048,
                pass: self.trainingPass,
                think: self.trainerTime,
                begin: start
            )
            callers.append(trainer)
        }
        var due = callers.indices.map { (time: start, caller: $0) }
        var waiting: [HostAdmission.CallID: Int] = [:]

        func deliver() {
            due.sort { $0.time < $1.time }
            while let first = due.first, first.time <= now {
                due.removeFirst()
                let caller = callers[first.caller]
                let call = HostAdmission.Call(
                    source: caller.source,
                    layer: .of(caller.calls % self.layers),
                    rows: caller.rows,
                    experts: 1,
                    kind: caller.kind
                )
                if case .queue(let id) = machine.arrived(call, now: first.time) { waiting[id] = first.caller }
            }
        }
        func finish(_ pass: HostAdmission.Pass) {
            machine.finished(expertReads: 1, now: now)
            for index in pass.calls.compactMap({ waiting.removeValue(forKey: $0) }) {
                callers[index].calls += 1
                let next = now.advanced(by: callers[index].think * (0.9 + 0.2 * random.fraction()))
                if callers[index].kind != .serving || callers[index].calls % self.layers == 0 {
                    callers[index].times.append(callers[index].begin.duration(to: next))
                    callers[index].begin = next
                }
                due.append((next, index))
            }
        }
        func compute(_ pass: HostAdmission.Pass) {
            guard let caller = pass.calls.first.flatMap({ waiting[$0] }).map({ callers[$0] }) else { return }
            var left = caller.pass
            while left > .zero {
                let piece = caller.kind == .serving ? left : min(left, self.distance ?? left)
                now = now.advanced(by: piece)
                left -= piece
                deliver()
                guard caller.kind != .serving, self.distance != nil else { continue }
                var count = 0
                while let beside = machine.nextBeside(count, now: now).pass {
                    count += 1
                    compute(beside)
                }
            }
            finish(pass)
        }
        while start.duration(to: now) < self.length {
            deliver()
            switch machine.next(now: now).step {
            case .compute(let pass): compute(pass)
            case .wait, .leave: now = max(now, due.map(\.time).min() ?? now)
            }
            #expect(machine.checkInvariants() == nil)
        }
        let steps = callers.first { $0.kind == .serving }?.times.sorted() ?? []
        let calls = callers.first { $0.kind != .serving }?.times ?? []
        return Outcome(
            medianStep: steps.isEmpty ? .zero : steps[steps.count / 2],
            slowestStep: steps.isEmpty ? .zero : steps[steps.count * 99 / 100],
            trainerCall: calls.isEmpty ? .zero : calls.reduce(.zero, +) / calls.count
        )
    }
}

@Suite
struct HostTrainingSimulationTests {
    @Test(
        "Beside a trainer a gateway's slow steps take little longer than alone, and training as well",
        arguments: [0, 1]
    )
    func beside(size: Int) {
        var simulation = size == 0 ? Simulation.small : .large
        let distance = size == 0 ? Duration.microseconds(300) : .microseconds(750)
        simulation.distance = distance
        let both = simulation.run()
        simulation.distance = nil
        let withoutPauses = simulation.run()
        simulation.trains = false
        let served = simulation.run()
        (simulation.trains, simulation.serves) = (true, false)
        let trained = simulation.run()
        print(
            "\(size == 0 ? "small" : "large"): p99 step \(served.slowestStep) alone, \(both.slowestStep) beside training, "
                + "\(withoutPauses.slowestStep) without pauses; call of the trainer \(trained.trainerCall) alone, "
                + "\(both.trainerCall) beside serving, \(withoutPauses.trainerCall) without pauses"
        )
        #expect(both.slowestStep < served.slowestStep * 1.5)
        #expect(both.medianStep < served.medianStep * 1.5)
        #expect(both.trainerCall < trained.trainerCall * 1.3)
        #expect(withoutPauses.slowestStep > both.slowestStep * 2)
    }
}
