// SPDX-License-Identifier: Apache-2.0

import Synchronization
import Testing

@testable import ServiceKit

@Suite("Spinning before sleeping")
struct IdleSpinTests {
    @Test("what has happened is seen at once, whatever the limit", arguments: [Duration.zero, .milliseconds(1)])
    func done(limit: Duration) {
        #expect(IdleSpin(limit: limit, processors: 2).run(until: nil) { true })
    }

    @Test(
        "with no limit, and on one processor, a thread looks once",
        arguments: [(Duration.zero, 8), (.seconds(60), 1)]
    )
    func off(limit: Duration, processors: Int) {
        var looks = 0
        let happened = IdleSpin(limit: limit, processors: processors)
            .run(until: nil) {
                looks += 1
                return false
            }
        #expect(!happened)
        #expect(looks == 1)
    }

    @Test("a thread stops at its limit, at its deadline, or once something else wanted its processor")
    func ends() {
        let spin = IdleSpin(limit: .milliseconds(2), processors: 2)
        #expect(!spin.run(until: nil) { false })
        let past = ContinuousClock.now
        #expect(!IdleSpin(limit: .seconds(600), processors: 2).run(until: past) { false })
        // A look that takes as long as something else on the processor may take ends it, and the next one does not begin.
        let long = IdleSpin(limit: .seconds(600), processors: 2)
        var looks = 0
        let slow: () -> Bool = {
            looks += 1
            let start = ContinuousClock.now
            while start.duration(to: .now) < .milliseconds(3) {}
            return false
        }
        #expect(!long.run(until: nil, slow))
        let first = looks
        #expect(first >= 1)
        #expect(!long.run(until: nil, slow))
        #expect(looks == first + 1)
    }

    @Test("where threads have to wait for a processor, one looks once, or not at all if that is not free")
    func crowded() {
        let spin = IdleSpin(limit: .seconds(600), processors: 2)
        // What the system would count for a thread that has its processor for half of the time.
        var count = ProcessorPressure.Count(thread: 1, ran: .zero, waited: .zero, turns: 0)
        var now = ContinuousClock.now
        for _ in 0..<50 {
            count.ran += .milliseconds(10)
            count.waited += .milliseconds(10)
            now += .milliseconds(20)
            spin.counted(count, now: now)
        }
        #expect(spin.isCrowded)
        var looks = 0
        #expect(
            !spin.run(until: nil) {
                looks += 1
                return false
            }
        )
        #expect(looks == 1)
        #expect(!spin.run(until: nil, looksOnce: false) { true })
        #expect(spin.run(until: nil) { true })
    }

    @Test("a monitor's waiting thread sees a change while it spins, and after that")
    func monitor() async {
        for limit in [Duration.zero, .microseconds(200), .seconds(2)] {
            let monitor = Monitor(0, spin: IdleSpin(limit: limit, processors: 2))
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    for value in 1...200 {
                        monitor.notify { $0 = value }
                        await Task.yield()
                    }
                }
                group.addTask {
                    try? await ComputeThread.run(name: "waits") {
                        #expect(monitor.wait { $0 == 200 ? true : nil } == true)
                    }
                }
            }
            let late = monitor.wait(until: .now.advanced(by: .milliseconds(1))) { $0 == 201 ? true : nil }
            #expect(late == nil)
        }
    }
}
