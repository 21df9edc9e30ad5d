// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import SwitchyardTypes
internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// The threads of a ``WorkPool`` and what they share.
///
/// A thread claims a part before it computes it, its own first. So the caller never waits for a thread that has not begun: it
/// computes that thread's part itself. Sleeping and waking take one system call each.
final class WorkTeam: @unchecked Sendable {
    // Safety: `wakeBound` is the caller's, of whom there is one at a time. `context`, `body`, `count` and `parts` are written by the
    // caller before it advances `generation`, and read by helpers that have claimed a part of that generation; the caller does not
    // return before all parts are computed, and no part can be claimed after that.

    private(set) var helperCount = 0
    private var threads: [pthread_t] = []
    private var context: UnsafeRawPointer?
    private var body: ((UnsafeRawPointer, Range<Int>) -> Void)?
    private var count = 0
    private var parts = 0

    /// The number of the piece of work; helpers sleep on its lower half.
    private let generation: UnsafeMutablePointer<Atomic<Int>>
    /// For each part, the last piece of work in which a thread claimed it.
    private let claims: UnsafeMutablePointer<Atomic<Int>>
    /// Parts that are computed; the caller sleeps on it.
    private let computed: UnsafeMutablePointer<Atomic<Int32>>
    /// Helpers that sleep, are about to, or were woken and have not begun.
    ///
    /// Each counts itself, in and out. A caller that reset the number when it wakes them could miss one that falls asleep meanwhile, and
    /// nothing would wake that one again.
    private let sleepers = Atomic<Int>(0)
    private let callerSleeps = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)
    /// Whether no work is expected soon; helpers sleep at once.
    private let resting = Atomic<Bool>(false)
    private let room: Int
    private let spin: Duration
    /// Whether a thread computes the parts of others that are late; bound threads keep theirs.
    private let helpsOthers: Bool
    /// Whether helpers that sleep are woken; the caller's.
    private var wakeBound = WakeBound()

    /// How long a thread that spins keeps its processor to itself; after that, it lets others have it between two looks.
    private static let greed = Duration.microseconds(20)
    /// Looks between two of the clock, of some 40 nanoseconds each.
    private static let looks = 16
    /// A pause between two looks of the clock in which another thread had the processor.
    private static let gap = Duration.microseconds(50)

    /// The start arguments of a new thread.
    private final class Start {
        let team: WorkTeam
        let part: Int
        let processor: Int?

        init(team: WorkTeam, part: Int, processor: Int?) {
            self.team = team
            self.part = part
            self.processor = processor
        }
    }

    /// Starts threads; fewer if the system refuses some.
    ///
    /// - Parameters:
    ///   - helpers: Threads besides the caller's.
    ///   - processors: Their processors by part; none binds them.
    ///   - spin: How long a thread spins before it sleeps.
    init(helpers: Int, processors: [Int], spin: Duration) {
        self.room = helpers + 1
        self.spin = spin
        self.helpsOthers = processors.isEmpty
        self.generation = .allocate(capacity: 1)
        self.claims = .allocate(capacity: helpers + 1)
        self.computed = .allocate(capacity: 1)
        self.generation.initialize(to: Atomic(0))
        self.computed.initialize(to: Atomic(0))
        for part in 0...helpers { (self.claims + part).initialize(to: Atomic(0)) }
        for index in 0..<helpers {
            let part = index + 1
            let processor = processors.isEmpty ? nil : processors[part % processors.count]
            let start = Unmanaged.passRetained(Start(team: self, part: part, processor: processor))
            var thread = pthread_t()
            let code = pthread_create(
                &thread,
                nil,
                { argument in
                    guard let argument else {
                        return nil
                    }
                    let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                    ck_name_thread("products")
                    if let processor = start.processor {
                        ThreadPlacement.bind(to: processor)
                    }
                    start.team.help(part: start.part)
                    return nil
                },
                start.toOpaque()
            )
            guard code == 0 else {
                start.release()
                break
            }
            self.threads.append(thread)
            self.helperCount += 1
        }
    }

    deinit {
        self.generation.deinitialize(count: 1)
        self.computed.deinitialize(count: 1)
        self.claims.deinitialize(count: self.room)
        self.generation.deallocate()
        self.computed.deallocate()
        self.claims.deallocate()
    }

    /// Computes all parts and returns when they are computed.
    func run(count: Int, body: (Range<Int>) -> Void) {
        withoutActuallyEscaping(body) { body in
            withUnsafePointer(to: Closure(body: body)) { closure in
                self.run(count: count, context: closure) { context, range in
                    context.assumingMemoryBound(to: Closure.self).pointee.body(range)
                }
            }
        }
    }

    /// Sends helpers that spin to sleep; no other thread may hand in work meanwhile.
    func rest() {
        self.resting.store(true, ordering: .relaxed)
        self.wakeBound.rests(now: .now)
    }

    /// Wakes helpers that sleep if the work until the next rest is likely to be worth it; no other thread may hand in work meanwhile.
    func expect() {
        guard self.resting.load(ordering: .relaxed) else { return }
        self.resting.store(false, ordering: .sequentiallyConsistent)
        let sleeping = self.sleepers.load(ordering: .sequentiallyConsistent)
        if sleeping > 0, self.wakes(sleeping: sleeping) { ck_wake_all(Self.word(of: self.generation)) }
    }

    /// Whether to wake helpers for a piece of work.
    private func wakes(sleeping: Int) -> Bool {
        // A part whose thread is bound is computed by no other.
        guard self.helpsOthers, sleeping >= self.helperCount else { return true }
        return self.wakeBound.wakes(now: .now)
    }

    private struct Closure {
        let body: (Range<Int>) -> Void
    }

    /// Computes all parts and returns when they are computed.
    ///
    /// - Parameters:
    ///   - count: Number of items.
    ///   - context: What the body needs. A closure that captured it instead would be allocated for each piece of work.
    ///   - body: Computes a range of items, without capturing anything.
    func run(count: Int, context: UnsafeRawPointer, body: @escaping (UnsafeRawPointer, Range<Int>) -> Void) {
        self.context = context
        self.body = body
        self.count = count
        self.parts = min(self.helperCount + 1, count)
        self.resting.store(false, ordering: .relaxed)
        self.computed.pointee.store(0, ordering: .relaxed)
        let number = self.generation.pointee.load(ordering: .relaxed) + 1
        // Parts that this piece of work does not have are claimed for good, and so is the caller's own.
        self.claims[0].store(number, ordering: .relaxed)
        for part in self.parts..<self.room { self.claims[part].store(number, ordering: .relaxed) }
        self.generation.pointee.store(number, ordering: .sequentiallyConsistent)
        let sleeping = self.sleepers.load(ordering: .sequentiallyConsistent)
        if sleeping == 0 {
            self.wakeBound.shares(now: .now)
        } else if self.wakes(sleeping: sleeping) {
            ck_wake_all(Self.word(of: self.generation))
        }
        self.compute(part: 0)
        if self.helpsOthers { self.computeAll(from: 1, of: number) }
        self.awaitParts()
        self.body = nil
        self.context = nil
    }

    /// Ends the threads and waits until they have ended.
    func stop() {
        self.stopping.store(true, ordering: .sequentiallyConsistent)
        self.generation.pointee.add(1, ordering: .sequentiallyConsistent)
        ck_wake_all(Self.word(of: self.generation))
        for thread in self.threads {
            pthread_join(thread, nil)
        }
    }

    // MARK: - Parts

    /// Claims a part of a piece of work.
    ///
    /// - Returns: Whether the calling thread computes it. No thread does in an earlier piece of work: its caller has seen to
    ///   it that all parts were claimed.
    private func claim(_ part: Int, of number: Int) -> Bool {
        let last = self.claims[part].load(ordering: .acquiring)
        guard last < number else { return false }
        return self.claims[part]
            .compareExchange(expected: last, desired: number, ordering: .acquiringAndReleasing).exchanged
    }

    /// Computes every part that no thread has begun, except the caller's.
    private func computeAll(from first: Int, of number: Int) {
        for offset in 0..<self.room {
            let part = (first + offset) % self.room
            if part > 0, self.claim(part, of: number) { self.compute(part: part) }
        }
    }

    /// Computes a part that the calling thread has claimed.
    private func compute(part: Int) {
        let parts = self.parts
        let range = (self.count * part / parts)..<(self.count * (part + 1) / parts)
        if let context = self.context { self.body?(context, range) }
        let done = self.computed.pointee.add(1, ordering: .sequentiallyConsistent).newValue
        if Int(done) == parts, self.callerSleeps.load(ordering: .sequentiallyConsistent) {
            ck_wake_all(Self.word(of: self.computed))
        }
    }

    private func awaitParts() {
        let parts = Int32(truncatingIfNeeded: self.parts)
        if self.looks(for: { self.computed.pointee.load(ordering: .acquiring) == parts }) { return }
        self.callerSleeps.store(true, ordering: .sequentiallyConsistent)
        while true {
            let done = self.computed.pointee.load(ordering: .sequentiallyConsistent)
            if done == parts { break }
            ck_sleep_while(Self.word(of: self.computed), done)
        }
        self.callerSleeps.store(false, ordering: .sequentiallyConsistent)
    }

    // MARK: - Helpers

    private func help(part: Int) {
        var seen = 0
        while true {
            seen = self.awaitWork(after: seen)
            if self.stopping.load(ordering: .sequentiallyConsistent) {
                return
            }
            if self.helpsOthers {
                self.computeAll(from: part, of: seen)
            } else if self.claim(part, of: seen) {
                self.compute(part: part)
            }
        }
    }

    private func awaitWork(after seen: Int) -> Int {
        while true {
            _ = self.looks {
                self.generation.pointee.load(ordering: .acquiring) != seen || self.resting.load(ordering: .relaxed)
            }
            self.sleepers.add(1, ordering: .sequentiallyConsistent)
            defer { self.sleepers.subtract(1, ordering: .sequentiallyConsistent) }
            let current = self.generation.pointee.load(ordering: .sequentiallyConsistent)
            if current != seen { return current }
            ck_sleep_while(Self.word(of: self.generation), Int32(truncatingIfNeeded: seen))
        }
    }

    // MARK: - Waiting

    /// Looks for something before the calling thread sleeps, for ``spin`` at most.
    ///
    /// It pays where what a thread waits for comes sooner than it would be awake again. Two threads that each sleep a little too soon
    /// wake each other again and again: each is late by a wake-up, for which the other does not wait.
    ///
    /// - Parameter isThere: Whether what it waits for has happened.
    /// - Returns: Whether it has.
    private func looks(for isThere: () -> Bool) -> Bool {
        guard self.spin > .zero else { return isThere() }
        let start = ContinuousClock.now
        var last = start
        while true {
            for _ in 0..<Self.looks {
                if isThere() { return true }
                ck_pause()
            }
            let now = ContinuousClock.now
            if now - start >= self.spin || now - last >= Self.gap { return isThere() }
            last = now
            if now - start >= Self.greed { sched_yield() }
        }
    }

    // MARK: - Words to sleep on

    private static func word(of value: UnsafeMutablePointer<Atomic<Int32>>) -> UnsafePointer<Int32> {
        UnsafeRawPointer(value).assumingMemoryBound(to: Int32.self)
    }

    /// The lower half of a number, on machines that keep it first, as all do that this runs on.
    private static func word(of value: UnsafeMutablePointer<Atomic<Int>>) -> UnsafePointer<Int32> {
        UnsafeRawPointer(value).assumingMemoryBound(to: Int32.self)
    }
}
