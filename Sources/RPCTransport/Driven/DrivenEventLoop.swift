// SPDX-License-Identifier: Apache-2.0

public import Dispatch
public import NIOCore
internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// An event loop without a thread of its own: threads drive it while they wait for what it brings.
///
/// A thread that makes calls and waits for their answers does so with the loop's sockets in its own hands
/// (``perform(_:)``, ``drive(_:)``), so that neither the calls nor the answers change threads. While none does, the keeper
/// drives: a thread in ``keep()`` that sleeps until something is ready; for a short time after another thread has driven, which
/// will presumably be back, it looks every few milliseconds in place of that. So pings, timers, reconnecting and other threads'
/// calls go on whatever the others compute.
///
/// Who drives is one atomic byte (``DriveSeat``). Whatever runs on the loop runs on its driver's thread, one thing at a time, and
/// finds ``inEventLoop`` true there.
public final class DrivenEventLoop: EventLoop, @unchecked Sendable {
    // Safety: properties that are neither constant, atomic nor behind a lock are the driver's. The seat's atomic orders one
    // driver's changes before the next one's.

    typealias Work = @Sendable () -> Void

    /// How often work that leads to more work is done before sockets are looked at.
    private static let rounds = 64
    /// How long what is ready waits at most, in nanoseconds, for a caller that has left and is expected back.
    private static let patrolInterval: Int64 = 5_000_000

    let poller: Poller
    private let seat = Atomic<UInt8>(DriveSeat().rawValue)
    /// Whether the bell has rung since a driver last began to look.
    private let hasRung = Atomic<Bool>(false)
    /// The thread that drives; 0 while none does.
    private let driver = Atomic<UInt>(0)
    /// Wakes the caller that waits for the keeper's turn to end.
    private let handover: UnsafeMutablePointer<sem_t>
    private let agenda = Mutex(LoopAgenda<Work>())
    private let isStopped = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)
    private var channels: [UInt64: SocketChannel] = [:]
    private var nextChannelID: UInt64 = 0
    /// When the system's timer ends; nil if it is not set.
    private var timerDue: NIODeadline?
    /// The work that is being done.
    private var batch: [Work] = []

    /// Creates a loop; a thread must run ``keep()``.
    ///
    /// - Throws: `IOError` where the process has no file descriptor left.
    public init() throws {
        self.poller = try Poller()
        self.handover = .allocate(capacity: 1)
        self.handover.initialize(to: sem_t())
        sem_init(self.handover, 0, 0)
    }

    deinit {
        sem_destroy(self.handover)
        self.handover.deallocate()
    }

    // MARK: - Driving

    /// Runs a function on the loop, on this thread, together with what it leaves to be done at once, such as writing.
    ///
    /// While another caller drives, the function runs without the loop, as on any other thread.
    ///
    /// - Parameter body: The function; it must not block.
    /// - Returns: Its result.
    public func perform<Result>(_ body: () -> Result) -> Result {
        guard self.enter() else { return body() }
        defer { self.leave() }
        let result = body()
        self.settle()
        return result
    }

    /// Gives a function the loop to drive, on this thread.
    ///
    /// - Parameter body: The function, which waits by its argument alone.
    /// - Returns: Its result; nil, without running it, while another caller drives.
    public func drive<Result>(_ body: (DrivenTurns) -> Result) -> Result? {
        guard self.enter() else { return nil }
        defer { self.leave() }
        return body(DrivenTurns(loop: self))
    }

    /// Ends a caller's wait for the next turn, so that it looks at what another thread changed.
    public func ring() {
        let thread = self.driver.load(ordering: .sequentiallyConsistent)
        if thread != 0, thread != Self.thread { self.poller.ring() }
    }

    /// Drives the loop while no caller does, until ``stop()``; blocks.
    ///
    /// One thread must run it, once.
    public func keep() {
        var isPatrolling = false
        while !self.isStopped.load(ordering: .acquiring) {
            self.poller.sleepAsKeeper(nanoseconds: isPatrolling ? Self.patrolInterval : nil)
            isPatrolling = self.drivesAsKeeper()
        }
        self.endAlone()
    }

    /// Drives for a turn, if no caller does.
    ///
    /// - Returns: Whether the keeper is on patrol.
    private func drivesAsKeeper() -> Bool {
        while true {
            let (waking, wasPatrolling) = self.changeSeat { ($0.keeperWoke(), $0.isPatrolled) }
            guard waking == .drives else { return wasPatrolling }
            self.driver.store(Self.thread, ordering: .sequentiallyConsistent)
            let wasBusy = self.turn(nanoseconds: 0)
            self.driver.store(0, ordering: .sequentiallyConsistent)
            let (departure, isPatrolling) = self.changeSeat { ($0.keeperEnded(wasBusy: wasBusy), $0.isPatrolled) }
            switch departure {
            case .arms: self.poller.watchForKeeper()
            case .handsOver: sem_post(self.handover)
            case .keeps: if self.hasRung.load(ordering: .sequentiallyConsistent) { continue }
            }
            return isPatrolling
        }
    }

    /// Makes ``keep()`` return.
    ///
    /// From then on threads that hand work to the loop do it themselves, and timed work is refused.
    public func stop() {
        self.isStopped.store(true, ordering: .sequentiallyConsistent)
        self.poller.callKeeper()
        self.endAlone()
    }

    /// Takes the seat for the calling thread.
    private func enter() -> Bool {
        guard !self.inEventLoop else { return false }
        switch self.changeSeat({ $0.callerArrived() }) {
        case .disarms: self.poller.unwatchForKeeper()
        case .drives: break
        case .waits: while sem_wait(self.handover) != 0 {}
        case .refused: return false
        }
        self.driver.store(Self.thread, ordering: .sequentiallyConsistent)
        return true
    }

    private func leave() {
        self.vacate()
        if self.isStopped.load(ordering: .sequentiallyConsistent) { self.endAlone() }
    }

    private func vacate() {
        self.driver.store(0, ordering: .sequentiallyConsistent)
        switch self.changeSeat({ $0.callerLeft() }) {
        case .arms: self.poller.watchForKeeper()
        case .callsKeeper: self.poller.callKeeper()
        case .keeps: if self.hasRung.load(ordering: .sequentiallyConsistent) { self.poller.callKeeper() }
        }
    }

    /// Ends the driver's wait, or wakes the keeper if there is no driver.
    private func ringBell() {
        self.poller.ring()
        // Either this thread finds the seat kept, or the one that leaves it finds that the bell has rung.
        self.hasRung.store(true, ordering: .sequentiallyConsistent)
        let seat = DriveSeat(rawValue: self.seat.load(ordering: .sequentiallyConsistent))
        if seat?.holder == .kept { self.poller.callKeeper() }
    }

    private func changeSeat<Result>(_ change: (inout DriveSeat) -> Result) -> Result {
        var old = self.seat.load(ordering: .relaxed)
        while true {
            var seat = DriveSeat(rawValue: old) ?? DriveSeat()
            let result = change(&seat)
            let (done, current) = self.seat.compareExchange(
                expected: old,
                desired: seat.rawValue,
                ordering: .sequentiallyConsistent
            )
            if done { return result }
            old = current
        }
    }

    // MARK: - Turns

    /// Waits until something is ready, and does what that asks for.
    ///
    /// - Parameter nanoseconds: How long to wait; nil for ever, 0 not at all.
    /// - Returns: Whether anything was ready.
    fileprivate func turn(nanoseconds: Int64?) -> Bool {
        // Before it looks: the bell rings before this is set.
        self.hasRung.store(false, ordering: .sequentiallyConsistent)
        let wasReady = self.poller.wait(nanoseconds: nanoseconds) { ready in
            switch ready {
            case .bell: self.agenda.withLock { $0.heard() }
            case .timer: self.timerDue = nil
            case .socket(let id, let readiness): self.channels[id]?.ready(readiness)
            }
        }
        self.settle()
        return wasReady
    }

    /// Does the work that is due, and what it leads to, and sets the timer for the rest.
    private func settle() {
        for _ in 0..<Self.rounds {
            var batch = self.batch
            self.batch = []
            self.agenda.withLock { $0.takeReady(into: &batch, now: .now()) }
            guard !batch.isEmpty else {
                self.batch = batch
                break
            }
            for work in batch { work() }
            batch.removeAll(keepingCapacity: true)
            self.batch = batch
        }
        let (next, isLeft) = self.agenda.withLock { ($0.nextDue, $0.hasReady) }
        if isLeft { self.ringBell() }
        guard let next, self.timerDue.map({ next < $0 }) ?? true else { return }
        self.timerDue = next
        self.poller.setTimer(after: (next - .now()).nanoseconds)
    }

    /// Does what is left to do where there is no keeper any more; the first time, ends what the loop still carries.
    private func endAlone() {
        while !self.hasEnded.load(ordering: .sequentiallyConsistent) || self.agenda.withLock({ $0.hasReady }),
            self.enter()
        {
            if !self.hasEnded.exchange(true, ordering: .sequentiallyConsistent) {
                for work in self.agenda.withLock({ $0.end() }) { work() }
                for channel in self.channels.values {
                    channel.close0(error: EventLoopError.shutdown, mode: .all, promise: nil)
                }
            }
            _ = self.turn(nanoseconds: 0)
            self.vacate()
        }
    }

    // MARK: - Channels

    /// Adds a channel of this loop; on the loop alone.
    ///
    /// - Returns: The number by which its socket is watched.
    func add(_ channel: SocketChannel) -> UInt64 {
        self.nextChannelID += 1
        self.channels[self.nextChannelID] = channel
        return self.nextChannelID
    }

    /// Whether the loop takes no timed work any more, and so nothing that may never end.
    var isEnded: Bool { self.hasEnded.load(ordering: .relaxed) }

    func remove(_ id: UInt64) { self.channels[id] = nil }

    // MARK: - EventLoop

    /// Whether the calling thread drives the loop.
    public var inEventLoop: Bool { self.driver.load(ordering: .relaxed) == Self.thread }

    private static var thread: UInt { UInt(pthread_self()) }

    /// Has work done on the loop.
    public func execute(_ task: @escaping @Sendable () -> Void) {
        let isOnLoop = self.inEventLoop
        let mustRing = self.agenda.withLock { agenda in
            agenda.add(task)
            return isOnLoop ? false : agenda.ring()
        }
        guard mustRing else { return }
        self.ringBell()
        if self.isStopped.load(ordering: .sequentiallyConsistent) { self.endAlone() }
    }

    /// Has work done on the loop at a time.
    @discardableResult
    public func scheduleTask<T>(
        deadline: NIODeadline,
        _ task: @escaping @Sendable () throws -> T
    ) -> Scheduled<T> {
        let promise = self.makePromise(of: T.self)
        let isOnLoop = self.inEventLoop
        let work: Work = {
            guard !self.isStopped.load(ordering: .relaxed) else { return promise.fail(EventLoopError.shutdown) }
            do { promise.assumeIsolated().succeed(try task()) } catch { promise.fail(error) }
        }
        let (id, mustRing) = self.agenda.withLock { agenda -> (LoopAgenda<Work>.TimerID?, Bool) in
            let isEarlier = agenda.nextDue.map { deadline < $0 } ?? true
            let id = agenda.add(work, at: deadline)
            return (id, isEarlier && !isOnLoop && id != nil ? agenda.ring() : false)
        }
        guard let id else {
            promise.fail(EventLoopError.shutdown)
            return Scheduled(promise: promise) {}
        }
        if mustRing { self.ringBell() }
        return Scheduled(promise: promise) { [weak self] in
            // The work is released without the lock.
            _ = self?.agenda.withLock { $0.cancel(id) }
        }
    }

    /// Has work done on the loop after a time.
    @discardableResult
    public func scheduleTask<T>(in time: TimeAmount, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> {
        self.scheduleTask(deadline: .now() + time, task)
    }

    /// The loop itself.
    public func next() -> any EventLoop { self }

    /// The loop alone.
    public func makeIterator() -> EventLoopIterator { EventLoopIterator([self]) }

    /// Not supported: the loop ends with ``stop()``.
    public func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) {
        queue.async { callback(EventLoopError.unsupportedOperation) }
    }
}

/// What a thread that drives a ``DrivenEventLoop`` waits with.
public struct DrivenTurns {
    fileprivate let loop: DrivenEventLoop

    /// Does what is ready, without waiting.
    ///
    /// - Returns: Whether anything was.
    public func poll() -> Bool { self.loop.turn(nanoseconds: 0) }

    /// Waits until something is ready, and does it.
    ///
    /// It may return without anything having happened.
    ///
    /// - Parameter deadline: When to stop waiting.
    public func wait(until deadline: ContinuousClock.Instant) {
        let left = (NIODeadline(deadline) - .now()).nanoseconds
        _ = self.loop.turn(nanoseconds: max(0, left))
    }
}

// Only the thread that drives has it.
@available(*, unavailable)
extension DrivenTurns: Sendable {}
