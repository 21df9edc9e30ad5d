// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import Synchronization
import Testing

@testable import RPCTransport

/// Runs a loop and its keeper and gives the loop to the body.
func withDrivenLoop<Result>(_ body: (DrivenEventLoop) async throws -> Result) async throws -> Result {
    let loop = try DrivenEventLoop()
    let ended = Signal()
    Thread.detachNewThread {
        loop.keep()
        ended.fire()
    }
    let outcome: Swift.Result<Result, any Error>
    do { outcome = .success(try await body(loop)) } catch { outcome = .failure(error) }
    loop.stop()
    await ended.wait()
    return try outcome.get()
}

/// Runs a function on a thread of its own.
func onThread<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
    await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: body()) }
    }
}

@Suite("An event loop that waiting threads drive", .timeLimit(.minutes(5)))
struct DrivenLoopTests {
    @Test("its keeper does work and timed work, in order, while no other thread drives")
    func keeper() async throws {
        try await withDrivenLoop { loop in
            #expect(!loop.inEventLoop)
            let order = Mutex<[Int]>([])
            for index in 0..<100 { loop.execute { order.withLock { $0.append(index) } } }
            let late = loop.scheduleTask(in: .milliseconds(30)) { order.withLock { $0.append(200) } }
            let early = loop.scheduleTask(in: .milliseconds(10)) {
                order.withLock { $0.append(100) }
                return loop.inEventLoop
            }
            let cancelled = loop.scheduleTask(in: .milliseconds(20)) { order.withLock { $0.append(-1) } }
            cancelled.cancel()
            let wasOnLoop = try await early.futureResult.get()
            #expect(wasOnLoop)
            try await late.futureResult.get()
            #expect(order.withLock { $0 } == Array(0...100) + [200])
            await #expect(throws: EventLoopError.self) { try await cancelled.futureResult.get() }
        }
    }

    @Test("work and timers go on while a thread that could drive computes")
    func computing() async throws {
        try await withDrivenLoop { loop in
            let release = Signal()
            // The thread has driven and will again; between the two it does nothing for the loop.
            let computing = Task {
                await onThread {
                    _ = loop.drive { $0.poll() }
                    while release.count == 0 { usleep(1_000) }
                    return loop.drive { $0.poll() } != nil
                }
            }
            try await loop.scheduleTask(in: .milliseconds(20)) {}.futureResult.get()
            try await loop.submit {}.get()
            release.fire()
            let hasDriven = await computing.value
            #expect(hasDriven)
        }
    }

    @Test("a driver does the work that other threads bring, on its own thread, and is woken by a ring")
    func driver() async throws {
        try await withDrivenLoop { loop in
            let driving = Signal()
            let flag = SharedFlag()
            let driver = Task {
                await onThread {
                    loop.drive { turns in
                        driving.fire()
                        while !flag.value { turns.wait(until: .now + .seconds(600)) }
                        return UInt(pthread_self())
                    }
                }
            }
            await driving.wait()
            let thread = try await loop.submit { UInt(pthread_self()) }.get()
            #expect(loop.drive { _ in true } == nil)
            #expect(loop.perform { !loop.inEventLoop })
            flag.set()
            loop.ring()
            let driverThread = await driver.value
            #expect(driverThread == thread)
        }
    }

    @Test("a driver's wait ends at its time")
    func deadline() async throws {
        try await withDrivenLoop { loop in
            let waited = await onThread { () -> Duration? in
                loop.drive { turns -> Duration in
                    let start = ContinuousClock.now
                    let end = start + .milliseconds(30)
                    while ContinuousClock.now < end { turns.wait(until: end) }
                    return .now - start
                }
            }
            let time = try #require(waited)
            #expect(time >= .milliseconds(30))
        }
    }

    @Test("many threads that drive, perform and bring work leave none undone, and never work at the same time")
    func contention() async throws {
        try await withDrivenLoop { loop in
            let inside = Turnstile()
            await withTaskGroup(of: Void.self) { group in
                for thread in 0..<4 {
                    group.addTask {
                        await onThread {
                            for round in 0..<2_000 {
                                switch (thread + round) % 3 {
                                case 0: loop.execute { inside.pass() }
                                case 1: loop.perform { loop.execute { inside.pass() } }
                                default:
                                    loop.execute { inside.pass() }
                                    _ = loop.drive { $0.poll() }
                                }
                            }
                        }
                    }
                }
            }
            try await loop.submit {}.get()
            #expect(inside.passed == 8_000)
            #expect(inside.most == 1)
        }
    }

    @Test("after its end the threads that bring work do it, and timed work is refused")
    func stopped() async throws {
        let loop = try DrivenEventLoop()
        let waiting = loop.scheduleTask(in: .hours(1)) {}
        let before = loop.submit { 1 }
        loop.stop()
        loop.keep()
        let first = try await before.get()
        let isOnLoop = try await loop.submit { loop.inEventLoop }.get()
        #expect(first == 1 && isOnLoop)
        await #expect(throws: EventLoopError.self) { try await waiting.futureResult.get() }
        await #expect(throws: EventLoopError.self) {
            try await loop.scheduleTask(in: .nanoseconds(1)) {}.futureResult.get()
        }
    }

    @Test("a loop that never ran frees its descriptors and its work")
    func freed() throws {
        final class Mark: Sendable {}
        weak var mark: Mark?
        do {
            let loop = try DrivenEventLoop()
            let made = Mark()
            mark = made
            loop.execute { _ = made }
        }
        #expect(mark == nil)
    }
}

/// An atomic flag that closures can share.
private final class SharedFlag: Sendable {
    private let flag = Atomic<Bool>(false)

    var value: Bool { self.flag.load(ordering: .acquiring) }

    func set() { self.flag.store(true, ordering: .releasing) }
}

/// Counts how many threads are inside at the same time.
private final class Turnstile: Sendable {
    private let state = Mutex((now: 0, most: 0, passed: 0))

    var most: Int { self.state.withLock { $0.most } }
    var passed: Int { self.state.withLock { $0.passed } }

    func pass() {
        self.state.withLock { state in
            state.now += 1
            state.most = max(state.most, state.now)
        }
        self.state.withLock { state in
            state.now -= 1
            state.passed += 1
        }
    }
}
