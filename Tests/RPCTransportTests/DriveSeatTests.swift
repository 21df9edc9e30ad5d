// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RPCTransport

@Suite("The seat of an event loop's driver", .timeLimit(.minutes(5)))
struct DriveSeatTests {
    @Test(
        "never has two drivers, and leaves nothing to be done without one, however threads interleave",
        arguments: [true, false]
    )
    func interleavings(isPatrolSlow: Bool) {
        let start = World(isPatrolSlow: isPatrolSlow)
        var known: Set<World> = [start]
        var open = [start]
        var ends = 0
        while let world = open.popLast() {
            if world.driverCount > 1 || world.seat.checkInvariants() != nil {
                Issue.record("\(world)")
                return
            }
            let next = world.successors
            if next.isEmpty {
                ends += 1
                guard world.isAtRest else {
                    Issue.record("\(world)")
                    return
                }
            }
            for world in next where known.insert(world).inserted { open.append(world) }
        }
        #expect(ends > 0)
        // Threads that interleave only between whole turns would reach a few hundred.
        #expect(known.count > 5_000)
    }

    @Test("a caller that comes while another drives does without, and then the keeper is to be woken")
    func refused() {
        var seat = DriveSeat()
        #expect(seat.callerArrived() == .disarms)
        #expect(seat.callerArrived() == .refused)
        #expect(seat.keeperWoke() == .sleeps)
        #expect(seat.callerLeft() == .arms)
        #expect(seat.holder == .vacant)
    }

    @Test("the keeper hands the seat to the caller that waits, and to that one alone")
    func handover() {
        var seat = DriveSeat()
        #expect(seat.keeperWoke() == .drives)
        #expect(seat.callerArrived() == .waits)
        #expect(seat.callerArrived() == .refused)
        #expect(seat.keeperEnded(wasBusy: true) == .handsOver)
        #expect(seat.holder == .caller)
    }

    @Test("callers that come again and again need the system once, and the keeper's patrol ends after they have gone")
    func patrol() {
        var seat = DriveSeat()
        #expect(seat.callerArrived() == .disarms)
        #expect(seat.callerLeft() == .callsKeeper)
        for _ in 0..<3 {
            for _ in 0..<100 {
                #expect(seat.callerArrived() == .drives)
                #expect(seat.callerLeft() == .keeps)
            }
            #expect(seat.keeperWoke() == .drives)
            #expect(seat.keeperEnded(wasBusy: false) == .keeps)
            #expect(seat.isPatrolled)
        }
        #expect(seat.keeperWoke() == .drives)
        #expect(seat.keeperEnded(wasBusy: false) == .arms)
        #expect(!seat.isPatrolled && seat.holder == .vacant)
    }

    @Test("a keeper that found something ready is to be woken by what comes next")
    func busy() {
        var seat = DriveSeat()
        #expect(seat.callerArrived() == .disarms)
        #expect(seat.callerLeft() == .callsKeeper)
        #expect(seat.keeperWoke() == .drives)
        #expect(seat.keeperEnded(wasBusy: true) == .arms)
        #expect(seat.isPatrolled && seat.holder == .vacant)
        #expect(seat.callerArrived() == .disarms)
        #expect(seat.callerLeft() == .keeps)
    }

    @Test("fits its byte, and no other byte is a seat")
    func bytes() {
        for byte in UInt8.min...UInt8.max {
            guard let seat = DriveSeat(rawValue: byte) else { continue }
            #expect(seat.rawValue == byte)
        }
        #expect(DriveSeat(rawValue: 5) == nil && DriveSeat(rawValue: 64) == nil)
        #expect(DriveSeat(rawValue: DriveSeat().rawValue) == DriveSeat())
    }
}

/// A keeper, two callers and a thread that brings work, with the system around them; one step of any of them leads to the next
/// world.
///
/// The system tells the keeper once after it was asked to, when something is or becomes ready.
private struct World: Hashable {
    /// What a driver does.
    enum Turn: Hashable {
        case begins
        case looks
        /// Does the work that has come.
        case settles
        case over
    }

    enum Keeper: Hashable {
        case asleep(onPatrol: Bool)
        case woken
        case driving(Turn, wasBusy: Bool)
        /// Has left the seat, and is about to do what that asks for.
        case leaving(DriveSeat.Departure, onPatrol: Bool)
    }

    enum Caller: Hashable {
        case idle(runs: Int)
        /// Has the seat, and is about to ask that the keeper not be woken.
        case arrived(runs: Int)
        case waiting(runs: Int)
        case driving(Turn, runs: Int)
        /// Has left the seat, and is about to do what that asks for.
        case leaving(DriveSeat.Leaving, runs: Int)
    }

    enum Bringer: Hashable {
        case idle
        case added
        case rung
        case told
        case done
    }

    /// Whether no interval of the patrol ends: what other threads bring must not have to wait for that.
    let isPatrolSlow: Bool
    var seat = DriveSeat()
    /// Whether the system wakes the keeper when something is ready.
    var isWatched = true
    /// Whether a socket is ready.
    var isReady = false
    /// How often one may still become ready.
    var arrivals = 1
    var isBellReady = false
    var hasRung = false
    var isKeeperCalled = false
    /// Whether another thread's work is to be done.
    var hasWork = false
    /// What the caller that waits was sent.
    var tokens = 0
    var keeper = Keeper.asleep(onPatrol: false)
    var callers = [Caller.idle(runs: 2), .idle(runs: 1)]
    var bringer = Bringer.idle

    init(isPatrolSlow: Bool) { self.isPatrolSlow = isPatrolSlow }

    var driverCount: Int {
        let callers = self.callers.count {
            switch $0 {
            case .arrived, .driving: true
            case .idle, .waiting, .leaving: false
            }
        }
        guard case .driving = self.keeper else { return callers }
        return callers + 1
    }

    /// Whether everything was done that can be.
    var isAtRest: Bool {
        guard !self.hasWork, self.tokens == 0, self.bringer == .done, !self.isKeeperCalled,
            self.callers.allSatisfy({ $0 == .idle(runs: 0) })
        else { return false }
        if self.isPatrolSlow, self.seat.holder == .kept { return self.keeper == .asleep(onPatrol: true) }
        return self.keeper == .asleep(onPatrol: self.seat.isPatrolled) && self.seat.holder == .vacant && self.isWatched
            && !self.isReady
    }

    var successors: [World] {
        var next = self.keeperSteps + self.bringerSteps
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

    /// The steps of a driver in its turn: it looks once, and does all work that is there afterwards.
    private func steps(_ turn: Turn, _ set: (inout World, Turn) -> Void) -> [World] {
        switch turn {
        case .begins:
            return [
                self.changed { world in
                    world.hasRung = false
                    set(&world, .looks)
                }
            ]
        case .looks:
            return [
                self.changed { world in
                    world.isReady = false
                    world.isBellReady = false
                    set(&world, .settles)
                }
            ]
        case .settles:
            return [
                self.changed { world in
                    world.hasWork = false
                    set(&world, .over)
                }
            ]
        case .over: return []
        }
    }

    private var keeperSteps: [World] {
        switch self.keeper {
        case .asleep(let isOnPatrol):
            var next: [World] = []
            if self.isWatched, self.isReady || self.isBellReady {
                next.append(
                    self.changed { world in
                        world.isWatched = false
                        world.keeper = .woken
                    }
                )
            }
            if self.isKeeperCalled {
                next.append(
                    self.changed { world in
                        world.isKeeperCalled = false
                        world.keeper = .woken
                    }
                )
            }
            if isOnPatrol, !self.isPatrolSlow { next.append(self.changed { $0.keeper = .woken }) }
            return next
        case .woken:
            return [
                self.changed { world in
                    let waking = world.seat.keeperWoke()
                    world.keeper =
                        waking == .drives
                        ? .driving(.begins, wasBusy: false) : .asleep(onPatrol: world.seat.isPatrolled)
                }
            ]
        case .driving(let turn, let wasBusy):
            // One turn, and it leaves.
            guard turn == .over else {
                let isBusy = wasBusy || turn == .looks && (self.isReady || self.isBellReady)
                return self.steps(turn) { $0.keeper = .driving($1, wasBusy: isBusy) }
            }
            return [
                self.changed { world in
                    let departure = world.seat.keeperEnded(wasBusy: wasBusy)
                    world.keeper = .leaving(departure, onPatrol: world.seat.isPatrolled)
                }
            ]
        case .leaving(let departure, let isOnPatrol):
            return [
                self.changed { world in
                    world.keeper = .asleep(onPatrol: isOnPatrol)
                    switch departure {
                    case .arms: world.isWatched = true
                    case .handsOver: world.tokens += 1
                    case .keeps: if world.hasRung { world.keeper = .woken }
                    }
                }
            ]
        }
    }

    private var bringerSteps: [World] {
        let step: (inout World) -> Void
        switch self.bringer {
        case .idle:
            step = { world in
                world.hasWork = true
                world.bringer = .added
            }
        case .added:
            step = { world in
                world.isBellReady = true
                world.bringer = .rung
            }
        case .rung:
            step = { world in
                world.hasRung = true
                world.bringer = .told
            }
        case .told:
            step = { world in
                if world.seat.holder == .kept { world.isKeeperCalled = true }
                world.bringer = .done
            }
        case .done: return []
        }
        return [self.changed(step)]
    }

    private func steps(ofCaller index: Int) -> [World] {
        switch self.callers[index] {
        case .idle(runs: 0):
            return []
        case .idle(let runs):
            return [
                self.changed { world in
                    world.callers[index] =
                        switch world.seat.callerArrived() {
                        case .disarms: .arrived(runs: runs - 1)
                        case .drives: .driving(.begins, runs: runs - 1)
                        case .waits: .waiting(runs: runs - 1)
                        case .refused: .idle(runs: runs - 1)
                        }
                }
            ]
        case .arrived(let runs):
            return [
                self.changed { world in
                    world.isWatched = false
                    world.callers[index] = .driving(.begins, runs: runs)
                }
            ]
        case .waiting(let runs):
            guard self.tokens > 0 else { return [] }
            return [
                self.changed { world in
                    world.tokens -= 1
                    world.callers[index] = .driving(.begins, runs: runs)
                }
            ]
        case .driving(let turn, let runs):
            // As many turns as it likes, or none.
            var next = self.steps(turn) { $0.callers[index] = .driving($1 == .over ? .begins : $1, runs: runs) }
            if turn == .begins {
                next.append(
                    self.changed { world in
                        let leaving = world.seat.callerLeft()
                        world.callers[index] = .leaving(leaving, runs: runs)
                    }
                )
            }
            return next
        case .leaving(let leaving, let runs):
            return [
                self.changed { world in
                    world.callers[index] = .idle(runs: runs)
                    switch leaving {
                    case .arms: world.isWatched = true
                    case .callsKeeper: world.isKeeperCalled = true
                    case .keeps: if world.hasRung { world.isKeeperCalled = true }
                    }
                }
            ]
        }
    }
}
