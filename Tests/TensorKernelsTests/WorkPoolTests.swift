// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import TensorKernels
import Testing

@Suite("The work pool")
struct WorkPoolTests {
    /// Counters that several threads add to.
    private final class Tally: Sendable {
        let counts: Mutex<[Int]>

        init(_ count: Int) {
            self.counts = Mutex([Int](repeating: 0, count: count))
        }

        func add(_ range: Range<Int>) {
            self.counts.withLock { counts in
                for index in range {
                    counts[index] += 1
                }
            }
        }
    }

    @Test("computes every item exactly once", arguments: [1, 2, 3, 8], [0, 1, 2, 7, 100])
    func coverage(threads: Int, count: Int) {
        let pool = WorkPool(threads: threads)
        #expect(pool.threadCount == threads)
        let tally = Tally(count)
        for _ in 0..<20 {
            pool.run(count) { tally.add($0) }
        }
        #expect(tally.counts.withLock { $0 } == [Int](repeating: 20, count: count))
    }

    @Test("another thread comes to work that lasts, however often it slept before", arguments: [0, 40])
    func wakes(spinMicroseconds: Int) throws {
        let pool = WorkPool(threads: 2, spin: .microseconds(spinMicroseconds))
        let caller = pthread_self()
        for round in 0..<40 {
            for piece in 0..<2_500 {
                pool.run(2) { _ in }
                if piece % 7 == 0 { pool.rest() }
            }
            let came = Atomic<Bool>(false)
            let end = ContinuousClock.now + .seconds(20)
            // Part 0 is the caller's. While it lasts, only another thread can take part 1.
            while !came.load(ordering: .relaxed), ContinuousClock.now < end {
                pool.run(2) { _ in
                    if pthread_equal(pthread_self(), caller) == 0 { came.store(true, ordering: .relaxed) }
                    let pause = ContinuousClock.now + .milliseconds(1)
                    while ContinuousClock.now < pause {}
                }
            }
            let hasCome = came.load(ordering: .relaxed)
            try #require(hasCome, "no other thread came in round \(round)")
        }
    }

    @Test("computes every item exactly once, whether or not it wakes threads that rest", arguments: [2, 3, 8])
    func rests(threads: Int) {
        let pool = WorkPool(threads: threads, spin: .zero)
        let tally = Tally(8)
        for round in 0..<600 {
            pool.run(8) { tally.add($0) }
            // Work that is short at first, then longer, with a rest after each piece or after a few.
            if round > 300 {
                let end = ContinuousClock.now + .microseconds(200)
                pool.run(threads) { _ in while ContinuousClock.now < end {} }
            }
            if round % 3 > 0 { pool.rest() }
        }
        #expect(tally.counts.withLock { $0 } == [Int](repeating: 600, count: 8))
    }

    @Test("keeps bound threads on their processors, and computes the same", arguments: [1, 2, 5])
    func pinned(threads: Int) async {
        let allowed = ThreadPlacement.allowedProcessors()
        #expect(!allowed.isEmpty)
        let tally = Tally(100)
        let seen = Mutex<[[Int]]>([])
        // A thread of its own, so that what is bound is none of the test runner's.
        await withCheckedContinuation { done in
            Thread.detachNewThread {
                let pool = WorkPool(threads: threads, pinned: true)
                #expect(pool.bindCallingThread())
                for _ in 0..<20 {
                    pool.run(100) { tally.add($0) }
                }
                pool.run(threads) { _ in seen.withLock { $0.append(ThreadPlacement.allowedProcessors()) } }
                done.resume()
            }
        }
        #expect(tally.counts.withLock { $0 } == [Int](repeating: 20, count: 100))
        let placed = seen.withLock { $0 }.sorted { ($0.first ?? 0) < ($1.first ?? 0) }
        let expected = (0..<threads).map { [allowed[$0 % allowed.count]] }.sorted { $0[0] < $1[0] }
        #expect(placed == expected)
    }

    @Test("lets several callers take turns")
    func callers() async {
        let pool = WorkPool(threads: 3)
        let tally = Tally(50)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<25 {
                        pool.run(50) { tally.add($0) }
                    }
                }
            }
        }
        #expect(tally.counts.withLock { $0 } == [Int](repeating: 200, count: 50))
    }

    @Test("computes on when threads were sent to sleep, at whatever time", arguments: [2, 3])
    func rest(threads: Int) async {
        // Threads that are not sent to sleep would spin for as long as this test may take.
        let pool = WorkPool(threads: threads, spin: .seconds(1))
        let tally = Tally(10)
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for _ in 0..<500 {
                    pool.run(10) { tally.add($0) }
                    pool.rest()
                }
            }
            group.addTask {
                for _ in 0..<5_000 {
                    pool.rest()
                    await Task.yield()
                }
            }
        }
        #expect(tally.counts.withLock { $0 } == [Int](repeating: 500, count: 10))
        WorkPool(threads: 1).rest()
    }

    @Test("wakes threads that have gone to sleep")
    func sleepers() {
        let pool = WorkPool(threads: 2)
        let tally = Tally(2)
        for _ in 0..<5 {
            // Longer than a helper waits on its core.
            let start = ContinuousClock.now
            while ContinuousClock.now - start < .milliseconds(2) {}
            pool.run(2) { tally.add($0) }
        }
        #expect(tally.counts.withLock { $0 } == [5, 5])
    }
}
