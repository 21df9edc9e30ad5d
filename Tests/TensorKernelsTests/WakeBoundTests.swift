// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TensorKernels

@Suite("Whether sleeping threads are woken")
struct WakeBoundTests {
    /// Work that begins while the other threads sleep, piece after piece until it has taken some time alone, and the rest after it.
    ///
    /// - Parameters:
    ///   - bound: What decides.
    ///   - now: The time.
    ///   - time: What all pieces take alone.
    ///   - piece: What one piece takes.
    /// - Returns: After how much work the threads were woken; nil if they were not.
    private func work(
        _ bound: inout WakeBound,
        _ now: inout ContinuousClock.Instant,
        _ time: Duration,
        piece: Duration = .microseconds(5)
    ) -> Duration? {
        var (done, woken) = (Duration.zero, Duration?.none)
        while done < time {
            if woken == nil, bound.wakes(now: now) { woken = done }
            #expect(bound.checkInvariants() == nil)
            done += piece
            now += piece
        }
        bound.rests(now: now)
        #expect(bound.checkInvariants() == nil)
        now += .milliseconds(1)
        return woken
    }

    @Test("they are woken at once at first, and where the work usually takes long")
    func long() {
        var (bound, now) = (WakeBound(), ContinuousClock.now)
        for _ in 0..<20 {
            #expect(self.work(&bound, &now, .microseconds(300)) == .zero)
        }
    }

    @Test("they sleep on where the work usually takes less than waking them")
    func short() {
        var (bound, now) = (WakeBound(), ContinuousClock.now)
        for _ in 0..<20 { _ = self.work(&bound, &now, .microseconds(20)) }
        for _ in 0..<100 {
            #expect(self.work(&bound, &now, .microseconds(20)) == nil)
        }
    }

    @Test("work that takes longer than usual wakes them once it has taken as long as waking them, and soon at once")
    func change() {
        var (bound, now) = (WakeBound(), ContinuousClock.now)
        for _ in 0..<20 { _ = self.work(&bound, &now, .microseconds(20)) }
        #expect(self.work(&bound, &now, .milliseconds(2)) == WakeBound.worth)
        let next = (0..<8).map { _ in self.work(&bound, &now, .milliseconds(2)) }
        #expect(next.last == .some(.zero))
    }

    @Test("a clock that stands still or goes back, and rests without work, do no harm")
    func clocks() {
        var (bound, now) = (WakeBound(), ContinuousClock.now)
        bound.rests(now: now)
        _ = bound.wakes(now: now)
        bound.rests(now: now - .seconds(1))
        bound.shares(now: now)
        bound.shares(now: now - .seconds(5))
        bound.rests(now: now + .seconds(1_000))
        #expect(bound.checkInvariants() == nil)
        now += .seconds(1)
        #expect(self.work(&bound, &now, .milliseconds(1)) != nil)
    }
}
