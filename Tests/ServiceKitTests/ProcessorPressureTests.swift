// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ServiceKit

@Suite("Whether threads have to wait for a processor")
struct ProcessorPressureTests {
    /// A thread that is counted again and again, and what is made of that.
    private struct Counted {
        var pressure = ProcessorPressure()
        var count = ProcessorPressure.Count(thread: 1, ran: .zero, waited: .zero, turns: 0)
        var now = ContinuousClock.now

        /// Lets time pass in which the thread ran, waited and got a processor some times, and counts.
        mutating func pass(ran: Duration, waited: Duration, turns: Int = 0, times: Int = 1) {
            for _ in 0..<times {
                self.count.ran += ran
                self.count.waited += waited
                self.count.turns += turns
                self.now += ran + waited
                self.pressure.counted(self.count, now: self.now)
                #expect(self.pressure.checkInvariants() == nil)
            }
        }
    }

    @Test("it is high where a thread waits for a quarter of the time or more, and until it waits for less than a tenth")
    func limits() {
        var counted = Counted()
        counted.pass(ran: .milliseconds(10), waited: .zero, times: 50)
        #expect(!counted.pressure.isHigh && counted.pressure.share == 0)
        counted.pass(ran: .milliseconds(80), waited: .milliseconds(20), times: 50)
        #expect(!counted.pressure.isHigh)
        counted.pass(ran: .milliseconds(50), waited: .milliseconds(50), times: 50)
        #expect(counted.pressure.isHigh && abs(counted.pressure.share - 0.5) < 0.01)
        counted.pass(ran: .milliseconds(85), waited: .milliseconds(15), times: 50)
        #expect(counted.pressure.isHigh)
        counted.pass(ran: .milliseconds(95), waited: .milliseconds(5), times: 50)
        #expect(!counted.pressure.isHigh)
    }

    @Test("one wait alone, however long, does not make it high, and a few do")
    func single() {
        var counted = Counted()
        counted.pass(ran: .milliseconds(10), waited: .zero, times: 2)
        counted.pass(ran: .zero, waited: .milliseconds(30))
        #expect(!counted.pressure.isHigh && counted.pressure.share == 0.125)
        counted.pass(ran: .milliseconds(10), waited: .zero, times: 4)
        #expect(!counted.pressure.isHigh)
        counted.pass(ran: .milliseconds(5), waited: .milliseconds(10), times: 3)
        #expect(counted.pressure.isHigh)
    }

    @Test("what sleeping processors take to wake does not count, and what other threads take does")
    func wakeUps() {
        var counted = Counted()
        // Ten waits of 80 us in a millisecond of work, as of a thread that sleeps for each answer.
        counted.pass(ran: .milliseconds(1), waited: .microseconds(800), turns: 10, times: 500)
        #expect(counted.pressure.share == 0)
        // As many waits of 400 us: another thread had the processor.
        counted.pass(ran: .milliseconds(1), waited: .milliseconds(4), turns: 10, times: 500)
        #expect(counted.pressure.isHigh && abs(counted.pressure.share - 0.75) < 0.01)
        counted.pass(ran: .milliseconds(1), waited: .microseconds(800), turns: 10, times: 500)
        #expect(!counted.pressure.isHigh)
    }

    @Test("what a thread gives away does not count, and what it waits beyond that does")
    func given() {
        var counted = Counted()
        /// In ten milliseconds of work it gives its processor away 100 times, for 50 us each time.
        func passes(_ times: Int, waitingLonger time: Duration = .zero, turns: Int = 0) {
            for _ in 0..<times {
                var given = ProcessorPressure.Given()
                for _ in 0..<100 { given.add(.microseconds(50)) }
                counted.pressure.gaveWay(given)
                counted.pass(ran: .milliseconds(10), waited: .milliseconds(5) + time, turns: 100 + turns)
            }
        }
        passes(50)
        #expect(counted.pressure.share == 0)
        // The turns that it gave away excuse no wait of another kind, and those of a processor that wakes do.
        passes(50, waitingLonger: .milliseconds(10))
        #expect(counted.pressure.isHigh && abs(counted.pressure.share - 0.5) < 0.01)
        passes(50, waitingLonger: .milliseconds(1), turns: 10)
        #expect(!counted.pressure.isHigh)
        // What was given away counts once.
        counted.pass(ran: .milliseconds(10), waited: .milliseconds(10), times: 50)
        #expect(counted.pressure.isHigh)
    }

    @Test("short times are judged together")
    func short() {
        var counted = Counted()
        counted.pass(ran: .microseconds(10), waited: .microseconds(10), times: 490)
        #expect(counted.pressure.share == 0)
        counted.pass(ran: .microseconds(10), waited: .microseconds(10), times: 5_000)
        #expect(counted.pressure.isHigh)
    }

    @Test("one thread is judged, as long as it goes on, and counts that went back are begun anew")
    func threads() {
        var counted = Counted()
        counted.pass(ran: .milliseconds(10), waited: .zero)
        var other = ProcessorPressure.Count(thread: 2, ran: .zero, waited: .zero, turns: 0)
        for _ in 0..<100 {
            other.waited += .milliseconds(100)
            counted.pressure.counted(other, now: counted.now)
        }
        #expect(counted.pressure.share == 0)
        // The first one has ended.
        counted.now += .seconds(2)
        counted.pressure.counted(other, now: counted.now)
        other.waited += .milliseconds(100)
        counted.pressure.counted(other, now: counted.now)
        #expect(counted.pressure.share == 0.125)
        // A new thread with the same name.
        let fresh = ProcessorPressure.Count(thread: 2, ran: .zero, waited: .zero, turns: 0)
        counted.pressure.counted(fresh, now: counted.now)
        #expect(counted.pressure.share == 0.125 && counted.pressure.checkInvariants() == nil)
    }

    @Test("counts are due at most every ten milliseconds")
    func due() {
        var pressure = ProcessorPressure()
        let start = ContinuousClock.now
        let due = (0..<1_000).filter { pressure.isDue(now: start + .milliseconds($0)) }
        #expect(due == Array(stride(from: 0, to: 1_000, by: 10)))
    }

    @Test(
        "a line of the system that says something else is no count",
        arguments: ["", "1 2", "1 2 3 4", "a 2 3", "-1 2 3", "1 -2 3", "0 0 0", "99999999999999999999 2 3"]
    )
    func wrongLines(line: String) {
        #expect(ProcessorPressure.Count(schedstat: Array(line.utf8), thread: 1) == nil)
    }

    @Test("the system's count of this thread grows")
    func system() throws {
        let line = ProcessorPressure.Count(schedstat: Array("2000 30 4\n".utf8), thread: 7)
        let count = ProcessorPressure.Count(thread: 7, ran: .nanoseconds(2_000), waited: .nanoseconds(30), turns: 4)
        #expect(line == count)
        // Not every kernel counts.
        guard let first = ProcessorPressure.Count.ofThisThread() else { return }
        let end = ContinuousClock.now + .milliseconds(50)
        while ContinuousClock.now < end {}
        let second = try #require(ProcessorPressure.Count.ofThisThread())
        #expect(second.thread == first.thread && second.ran + second.waited > first.ran + first.waited)
    }
}
