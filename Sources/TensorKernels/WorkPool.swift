// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// A fixed set of threads that share one piece of work at a time.
///
/// The thread that hands in the work computes the first part itself. Parts are cut statically: part `i` of `n` always
/// covers the same indices. Threads that call at the same time take turns. Idle threads spin for some microseconds
/// before they sleep, which covers the gap between two layers' products.
public final class WorkPool: Sendable {
    /// Threads that take part in a piece of work, the calling one included.
    public let threadCount: Int

    /// Memory for products' quantised inputs.
    let scratch = ScratchShelf()

    private let team: WorkTeam?
    /// The processors of the parts, in their order; empty where threads are not bound.
    private let processors: [Int]
    private let turn = Mutex<Void>(())
    private let partMemory: PartMemory

    /// Starts a pool.
    ///
    /// - Parameters:
    ///   - threads: Threads that take part in a piece of work, the calling one included; at least 1. If the system refuses
    ///     to start them all, the pool has fewer.
    ///   - pinned: Whether each thread stays on its own processor, of those that the process may use. It pays where
    ///     nothing else computes on them; ``bindCallingThread()`` is for the thread that hands in the work.
    public init(threads: Int, pinned: Bool = false) {
        precondition(threads >= 1, "a pool of \(threads) threads cannot compute")
        let processors = pinned ? ThreadPlacement.allowedProcessors() : []
        let team = threads > 1 ? WorkTeam(helpers: threads - 1, processors: processors) : nil
        self.processors = processors
        self.team = team
        self.threadCount = 1 + (team?.helperCount ?? 0)
        self.partMemory = PartMemory(parts: self.threadCount)
    }

    deinit {
        self.team?.stop()
    }

    /// Binds the calling thread to the first part's processor, if this pool's threads are bound.
    ///
    /// - Returns: Whether it was bound.
    @discardableResult
    public func bindCallingThread() -> Bool {
        self.processors.first.map { ThreadPlacement.bind(to: $0) } ?? false
    }

    /// Computes `body` over all of `0 ..< count`, cut into one range for each thread.
    ///
    /// - Parameters:
    ///   - count: Number of items.
    ///   - body: Computes a range of items. It runs on several threads at once with disjoint ranges, must write only
    ///     what belongs to its items, and must not call back into the pool.
    public func run(_ count: Int, body: (Range<Int>) -> Void) {
        guard count > 0 else {
            return
        }
        guard let team, count > 1 else {
            body(0..<count)
            return
        }
        self.turn.withLock { _ in
            team.run(count: count, body: body)
        }
    }

    /// Elements below which waking other threads takes longer than a pass over them.
    private static let leastSharedElements = 1 << 15

    /// Computes `body` over all rows, shared among threads where there is enough for them.
    ///
    /// - Parameters:
    ///   - rows: Number of rows.
    ///   - width: Elements of a row.
    ///   - pool: The threads; the calling one alone where there are none.
    ///   - body: Computes a range of rows, under the same rules as ``run(_:body:)``'s.
    public static func share(_ rows: Int, width: Int, among pool: WorkPool?, body: (Range<Int>) -> Void) {
        guard let pool, rows * width >= Self.leastSharedElements else {
            if rows > 0 {
                body(0..<rows)
            }
            return
        }
        pool.run(rows, body: body)
    }

    /// Computes `body` over all of `0 ..< count`, cut into one range for each thread, each with its own scratch memory.
    ///
    /// - Parameters:
    ///   - count: Number of items.
    ///   - floats: Floats of scratch memory that each range needs; their contents are undefined.
    ///   - body: Computes a range of items, under the same rules as ``run(_:body:)``'s.
    public func runWithScratch(
        _ count: Int,
        floats: Int,
        body: (Range<Int>, UnsafeMutablePointer<Float>) -> Void
    ) {
        guard floats <= Product.scratchFloats else {
            self.run(count) { range in
                let memory = FloatMatrix(uninitializedRows: 1, columns: floats)
                withExtendedLifetime(memory) { body(range, memory.pointer) }
            }
            return
        }
        let parts = min(self.threadCount, count)
        guard parts > 1 else {
            if count > 0 {
                self.withPartMemory { body(0..<count, $0) }
            }
            return
        }
        self.run(parts) { (range: Range<Int>, scratch: UnsafeMutablePointer<Float>) in
            for part in range {
                body((count * part / parts)..<(count * (part + 1) / parts), scratch)
            }
        }
    }

    /// Computes `body` once for each part, each with its own scratch memory.
    ///
    /// - Parameters:
    ///   - parts: Number of parts, at most one for each thread.
    ///   - body: Computes the part that the range names, with `Product.scratchFloats` floats, and `CK_STREAM_FLOATS` more.
    func run(_ parts: Int, body: (Range<Int>, UnsafeMutablePointer<Float>) -> Void) {
        precondition(parts <= self.threadCount, "\(parts) parts for \(self.threadCount) threads")
        let memory = self.partMemory
        self.run(parts) { range in
            body(range, memory.part(range.lowerBound))
        }
    }

    /// Lends the calling thread scratch memory, while no part of another piece of work uses it.
    func withPartMemory(_ body: (UnsafeMutablePointer<Float>) -> Void) {
        let memory = self.partMemory
        self.turn.withLock { _ in
            body(memory.part(0))
        }
    }
}

/// Scratch memory for each part of a piece of work.
private final class PartMemory: @unchecked Sendable {
    // Safety: a part's memory is used only by the thread that computes it, under the pool's `turn`.

    private static let floats = Product.scratchFloats + Int(CK_STREAM_FLOATS)

    private let pointer: UnsafeMutablePointer<Float>

    init(parts: Int) {
        let bytes = parts * Self.floats * MemoryLayout<Float>.stride
        let raw = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        self.pointer = raw.bindMemory(to: Float.self, capacity: parts * Self.floats)
    }

    deinit {
        UnsafeMutableRawPointer(self.pointer).deallocate()
    }

    func part(_ index: Int) -> UnsafeMutablePointer<Float> {
        self.pointer + index * Self.floats
    }
}

/// The threads of a pool and what they share.
private final class WorkTeam: @unchecked Sendable {
    // Safety: `body`, `count` and `parts` are written by the caller before it advances `generation`, and read by the
    // helpers after they have seen it advance; the caller does not return before every helper has answered.

    private(set) var helperCount = 0
    private var threads: [pthread_t] = []
    private var body: ((Range<Int>) -> Void)?
    private var count = 0
    private var parts = 0

    private let generation = Atomic<Int>(0)
    private let unanswered = Atomic<Int>(0)
    private let stopping = Atomic<Bool>(false)
    private let sleepers = Atomic<Int>(0)
    private let callerSleeps = Atomic<Bool>(false)
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let workArrived: UnsafeMutablePointer<pthread_cond_t>
    private let workDone: UnsafeMutablePointer<pthread_cond_t>

    /// Rounds of spinning, of some 40 nanoseconds each, before a thread sleeps.
    private static let spins = 1000

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

    init(helpers: Int, processors: [Int]) {
        self.mutex = .allocate(capacity: 1)
        self.workArrived = .allocate(capacity: 1)
        self.workDone = .allocate(capacity: 1)
        self.mutex.initialize(to: pthread_mutex_t())
        self.workArrived.initialize(to: pthread_cond_t())
        self.workDone.initialize(to: pthread_cond_t())
        pthread_mutex_init(self.mutex, nil)
        pthread_cond_init(self.workArrived, nil)
        pthread_cond_init(self.workDone, nil)
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
        pthread_cond_destroy(self.workDone)
        pthread_cond_destroy(self.workArrived)
        pthread_mutex_destroy(self.mutex)
        self.workDone.deallocate()
        self.workArrived.deallocate()
        self.mutex.deallocate()
    }

    func run(count: Int, body: (Range<Int>) -> Void) {
        withoutActuallyEscaping(body) { body in
            self.body = body
            self.count = count
            self.parts = min(self.helperCount + 1, count)
            self.unanswered.store(self.helperCount, ordering: .sequentiallyConsistent)
            self.generation.add(1, ordering: .sequentiallyConsistent)
            if self.sleepers.load(ordering: .sequentiallyConsistent) > 0 {
                pthread_mutex_lock(self.mutex)
                pthread_cond_broadcast(self.workArrived)
                pthread_mutex_unlock(self.mutex)
            }
            self.compute(part: 0)
            self.awaitHelpers()
            self.body = nil
        }
    }

    /// Ends the threads and waits until they have ended.
    func stop() {
        self.stopping.store(true, ordering: .sequentiallyConsistent)
        self.generation.add(1, ordering: .sequentiallyConsistent)
        pthread_mutex_lock(self.mutex)
        pthread_cond_broadcast(self.workArrived)
        pthread_mutex_unlock(self.mutex)
        for thread in self.threads {
            pthread_join(thread, nil)
        }
    }

    private func compute(part: Int) {
        guard part < self.parts else {
            return
        }
        let range = (self.count * part / self.parts)..<(self.count * (part + 1) / self.parts)
        self.body?(range)
    }

    private func awaitHelpers() {
        for _ in 0..<WorkTeam.spins {
            if self.unanswered.load(ordering: .acquiring) == 0 {
                return
            }
            ck_pause()
        }
        pthread_mutex_lock(self.mutex)
        self.callerSleeps.store(true, ordering: .sequentiallyConsistent)
        while self.unanswered.load(ordering: .sequentiallyConsistent) > 0 {
            pthread_cond_wait(self.workDone, self.mutex)
        }
        self.callerSleeps.store(false, ordering: .sequentiallyConsistent)
        pthread_mutex_unlock(self.mutex)
    }

    private func help(part: Int) {
        var seen = 0
        while true {
            seen = self.awaitWork(after: seen)
            if self.stopping.load(ordering: .sequentiallyConsistent) {
                return
            }
            self.compute(part: part)
            let left = self.unanswered.subtract(1, ordering: .sequentiallyConsistent).newValue
            if left == 0, self.callerSleeps.load(ordering: .sequentiallyConsistent) {
                pthread_mutex_lock(self.mutex)
                pthread_cond_signal(self.workDone)
                pthread_mutex_unlock(self.mutex)
            }
        }
    }

    private func awaitWork(after seen: Int) -> Int {
        for _ in 0..<WorkTeam.spins {
            let current = self.generation.load(ordering: .acquiring)
            if current != seen {
                return current
            }
            ck_pause()
        }
        pthread_mutex_lock(self.mutex)
        self.sleepers.add(1, ordering: .sequentiallyConsistent)
        while self.generation.load(ordering: .sequentiallyConsistent) == seen {
            pthread_cond_wait(self.workArrived, self.mutex)
        }
        self.sleepers.subtract(1, ordering: .sequentiallyConsistent)
        let current = self.generation.load(ordering: .sequentiallyConsistent)
        pthread_mutex_unlock(self.mutex)
        return current
    }
}
