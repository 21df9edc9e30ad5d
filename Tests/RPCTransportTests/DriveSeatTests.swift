// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RPCTransport

@Suite("The seat of an event loop's driver")
struct DriveSeatTests {
    @Test("never has two drivers, and leaves nothing ready without one, however threads interleave")
    func interleavings() {
        var known: Set<World> = []
        var open = [World()]
        known.insert(open[0])
        var ends = 0
        while let world = open.popLast() {
            #expect(world.driverCount <= 1, "\(world)")
            let next = world.successors
            if next.isEmpty {
                ends += 1
                #expect(world.isAtRest, "\(world)")
            }
            for world in next where known.insert(world).inserted { open.append(world) }
        }
        #expect(ends > 0)
        // Threads that interleave only between whole turns would reach a few dozen.
        #expect(known.count > 1_000)
    }

    @Test("a caller that comes while another drives does without")
    func refused() {
        var seat = DriveSeat.vacant
        #expect(seat.callerArrived() == .drives)
        #expect(seat.callerArrived() == .refused)
        #expect(seat.keeperWoke() == false)
        seat.callerLeft()
        #expect(seat == .vacant)
    }

    @Test("the keeper hands the seat to the caller that waits, and to that one alone")
    func handover() {
        var seat = DriveSeat.vacant
        #expect(seat.keeperWoke() == true)
        #expect(seat.callerArrived() == .waits)
        #expect(seat.callerArrived() == .refused)
        #expect(seat.keeperEnded() == .handsOver)
        #expect(seat == .caller)
    }
}

/// A keeper and two callers with the system around them; one step of any of them leads to the next world.
///
/// The system tells the keeper once after it was asked to, when something is or becomes ready.
private struct World: Hashable {
    enum Keeper: Hashable {
        case asleep
        case woken
        case driving
        /// Has left the seat, and is about to ask to be woken or to wake the caller.
        case leaving(DriveSeat.Departure)
    }

    enum Caller: Hashable {
        case idle(runs: Int)
        /// Has the seat, and is about to ask that the keeper not be woken.
        case arrived(runs: Int)
        case waiting(runs: Int)
        case driving(runs: Int)
        /// Has left the seat, and is about to ask that the keeper be woken.
        case leaving(runs: Int)
    }

    var seat = DriveSeat.vacant
    /// Whether the system wakes the keeper when something is ready.
    var isWatched = true
    var isReady = false
    /// How often something may still become ready.
    var arrivals = 2
    /// What the caller that waits was sent.
    var tokens = 0
    var keeper = Keeper.asleep
    var callers = [Caller.idle(runs: 2), .idle(runs: 2)]

    var driverCount: Int {
        let callers = self.callers.count {
            switch $0 {
            case .arrived, .driving: true
            case .idle, .waiting, .leaving: false
            }
        }
        return callers + (self.keeper == .driving ? 1 : 0)
    }

    /// Whether everything was done that can be.
    var isAtRest: Bool {
        self.keeper == .asleep && self.isWatched && !self.isReady && self.seat == .vacant && self.tokens == 0
            && self.callers.allSatisfy { $0 == .idle(runs: 0) }
    }

    var successors: [World] {
        var next = self.keeperSteps
        for index in self.callers.indices { next += self.steps(ofCaller: index) }
        if self.arrivals > 0, !self.isReady {
            next.append(
                self.changed { world in
                    world.isReady = true
                    world.arrivals -= 1
                }
            )
        }
        return next
    }

    private func changed(_ change: (inout World) -> Void) -> World {
        var world = self
        change(&world)
        return world
    }

    private var keeperSteps: [World] {
        switch self.keeper {
        case .asleep:
            guard self.isWatched, self.isReady else { return [] }
            return [
                self.changed { world in
                    world.isWatched = false
                    world.keeper = .woken
                }
            ]
        case .woken:
            return [self.changed { $0.keeper = $0.seat.keeperWoke() ? .driving : .asleep }]
        case .driving:
            let ended = self.changed { $0.keeper = .leaving($0.seat.keeperEnded()) }
            return self.isReady ? [ended, self.changed { $0.isReady = false }] : [ended]
        case .leaving(.sleeps):
            return [
                self.changed { world in
                    world.isWatched = true
                    world.keeper = .asleep
                }
            ]
        case .leaving(.handsOver):
            return [
                self.changed { world in
                    world.tokens += 1
                    world.keeper = .asleep
                }
            ]
        }
    }

    private func steps(ofCaller index: Int) -> [World] {
        switch self.callers[index] {
        case .idle(runs: 0):
            return []
        case .idle(let runs):
            return [
                self.changed { world in
                    switch world.seat.callerArrived() {
                    case .drives: world.callers[index] = .arrived(runs: runs - 1)
                    case .waits: world.callers[index] = .waiting(runs: runs - 1)
                    case .refused: world.callers[index] = .idle(runs: runs - 1)
                    }
                }
            ]
        case .arrived(let runs):
            return [
                self.changed { world in
                    world.isWatched = false
                    world.callers[index] = .driving(runs: runs)
                }
            ]
        case .waiting(let runs):
            guard self.tokens > 0 else { return [] }
            return [
                self.changed { world in
                    world.tokens -= 1
                    world.callers[index] = .driving(runs: runs)
                }
            ]
        case .driving(let runs):
            let left = self.changed { world in
                world.seat.callerLeft()
                world.callers[index] = .leaving(runs: runs)
            }
            return self.isReady ? [left, self.changed { $0.isReady = false }] : [left]
        case .leaving(let runs):
            return [
                self.changed { world in
                    world.isWatched = true
                    world.callers[index] = .idle(runs: runs)
                }
            ]
        }
    }
}
