// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// A value behind a lock; threads can wait until it meets a condition.
///
/// It is for threads that may block: the engine's and the compute threads. Code on an event loop or in a task uses
/// only ``withLock(_:)`` and ``notify(_:)``, whose bodies must be short.
public final class Monitor<State: ~Copyable>: @unchecked Sendable {
    // Safety: `state` is touched only between a lock and an unlock of `mutex`.

    private let memory: UnsafeMutableRawPointer
    private let state: UnsafeMutablePointer<State>
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private let spin: IdleSpin?
    private let onChange: (@Sendable () -> Void)?
    /// How often waiting threads were told of a change.
    private let changes = Atomic<Int>(0)

    /// Creates a monitor.
    ///
    /// - Parameters:
    ///   - state: The initial value.
    ///   - spin: How long a waiting thread looks for a change before it sleeps; not at all if nil.
    ///   - onChange: Called, without the lock, by the thread that made a change others are told of: for a thread that waits for
    ///     the change elsewhere. It must not block.
    public init(
        _ state: consuming sending State,
        spin: IdleSpin? = nil,
        onChange: (@Sendable () -> Void)? = nil
    ) {
        self.spin = spin
        self.onChange = onChange
        // One allocation for all three, since a monitor is made for each layer of a step.
        let alignment = max(16, MemoryLayout<State>.alignment)
        func aligned(_ byteCount: Int) -> Int { (byteCount + alignment - 1) / alignment * alignment }
        let mutexOffset = aligned(MemoryLayout<State>.size)
        let conditionOffset = mutexOffset + aligned(MemoryLayout<pthread_mutex_t>.size)
        self.memory = .allocate(
            byteCount: conditionOffset + MemoryLayout<pthread_cond_t>.size,
            alignment: alignment
        )
        self.state = self.memory.bindMemory(to: State.self, capacity: 1)
        self.mutex = (self.memory + mutexOffset).bindMemory(to: pthread_mutex_t.self, capacity: 1)
        self.condition = (self.memory + conditionOffset).bindMemory(to: pthread_cond_t.self, capacity: 1)
        self.state.initialize(to: state)
        self.mutex.initialize(to: pthread_mutex_t())
        self.condition.initialize(to: pthread_cond_t())
        pthread_mutex_init(self.mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(self.condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(self.condition)
        pthread_mutex_destroy(self.mutex)
        self.state.deinitialize(count: 1)
        self.memory.deallocate()
    }

    /// Reads or changes the value without waking waiting threads.
    ///
    /// - Parameter body: What to do with the value; short, and it must not call back into the monitor.
    /// - Returns: The body's result.
    /// - Throws: What the body throws.
    public func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        pthread_mutex_lock(self.mutex)
        defer {
            pthread_mutex_unlock(self.mutex)
        }
        return try body(&self.state.pointee)
    }

    /// Changes the value and wakes the threads that wait for it to change.
    ///
    /// - Parameter body: What to do with the value; short, and it must not call back into the monitor.
    /// - Returns: The body's result.
    /// - Throws: What the body throws.
    public func notify<Result: ~Copyable, Failure: Error>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { self.tell() }
        return try self.withLock(body)
    }

    /// Changes the value and wakes the threads that wait for it to change, if the body says so.
    ///
    /// - Parameter body: What to do with the value; short, and it must not call back into the monitor. It returns whether a
    ///   waiting thread would find something to do.
    public func wake(if body: (inout State) -> Bool) {
        if self.withLock(body) { self.tell() }
    }

    /// Wakes the waiting threads: after the lock is free, or they would wake only to wait for it.
    private func tell() {
        self.changes.add(1, ordering: .sequentiallyConsistent)
        pthread_cond_broadcast(self.condition)
        self.onChange?()
    }

    /// Blocks the calling thread until the body returns something, or until the deadline.
    ///
    /// - Parameters:
    ///   - deadline: When to stop waiting; never if it is missing.
    ///   - body: Called with the value at once, after each change, and once more at the deadline. It returns nothing to
    ///     wait on.
    /// - Returns: What the body returned, or nothing if the deadline came first.
    public func wait<Result>(
        until deadline: ContinuousClock.Instant? = nil,
        _ body: (inout State) -> Result?
    ) -> Result? {
        self.wait(until: { _ in deadline }, for: body)
    }

    /// Blocks the calling thread until the body returns something, or until a deadline that depends on the value.
    ///
    /// - Parameters:
    ///   - deadline: Called once, with the value, before the wait begins.
    ///   - body: As in ``wait(until:_:)``.
    /// - Returns: What the body returned, or nothing if the deadline came first.
    public func wait<Result>(
        until deadline: (inout State) -> ContinuousClock.Instant?,
        for body: (inout State) -> Result?
    ) -> Result? {
        pthread_mutex_lock(self.mutex)
        defer {
            pthread_mutex_unlock(self.mutex)
        }
        let instant = deadline(&self.state.pointee)
        let limit = instant.map(Self.monotonicTime(of:))
        var mayRest = self.spin == nil
        while true {
            let seen = self.changes.load(ordering: .sequentiallyConsistent)
            if let result = body(&self.state.pointee) {
                return result
            }
            if let spin, !mayRest {
                mayRest = true
                pthread_mutex_unlock(self.mutex)
                _ = spin.run(until: instant) { self.changes.load(ordering: .acquiring) != seen }
                pthread_mutex_lock(self.mutex)
                continue
            }
            guard var limit else {
                pthread_cond_wait(self.condition, self.mutex)
                continue
            }
            if pthread_cond_timedwait(self.condition, self.mutex, &limit) == ETIMEDOUT {
                return body(&self.state.pointee)
            }
        }
    }

    /// The deadline on the clock that the condition waits by; in the past if the deadline is.
    private static func monotonicTime(of deadline: ContinuousClock.Instant) -> timespec {
        // A wait of more than a day can be cut to a day: the waiting thread checks again.
        let remaining = min(max(ContinuousClock.now.duration(to: deadline), .zero), .seconds(86_400))
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let (seconds, attoseconds) = remaining.components
        var result = timespec(
            tv_sec: now.tv_sec + Int(seconds),
            tv_nsec: now.tv_nsec + Int(attoseconds / 1_000_000_000)
        )
        if result.tv_nsec >= 1_000_000_000 {
            result.tv_sec += 1
            result.tv_nsec -= 1_000_000_000
        }
        return result
    }
}
