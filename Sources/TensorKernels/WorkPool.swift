// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import Synchronization

/// A fixed set of threads that share one piece of work at a time.
///
/// The thread that hands in the work computes the first part itself. Parts are cut statically: part `i` of `n` always
/// covers the same indices, whichever thread computes it: a part whose own thread is late, because it sleeps or because the
/// system runs something else there, is computed by a thread that has nothing left. Threads that call at the same time take
/// turns. Idle threads spin for some microseconds before they sleep, which covers the gap between two layers' products; they
/// do not where there are more of them than processors, nor once ``rest()`` says that there is nothing to come.
public final class WorkPool: Sendable {
    /// How long an idle thread spins before it sleeps, unless the caller says otherwise: longer than a thread takes to wake, which is
    /// up to 80 us in virtual machines.
    public static let defaultSpin = Duration.microseconds(100)

    /// Threads that take part in a piece of work, the calling one included.
    public let threadCount: Int

    /// Memory for products' quantised inputs.
    let scratch = ScratchShelf()

    /// Memory for lists of products.
    let productLists = ProductShelf()

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
    ///   - spin: How long an idle thread spins before it sleeps. None does if there are more threads than processors.
    public init(threads: Int, pinned: Bool = false, spin: Duration = WorkPool.defaultSpin) {
        precondition(threads >= 1, "a pool of \(threads) threads cannot compute")
        let allowed = ThreadPlacement.allowedProcessors()
        let processors = pinned ? allowed : []
        let spin = !allowed.isEmpty && threads > allowed.count ? .zero : spin
        let team = threads > 1 ? WorkTeam(helpers: threads - 1, processors: processors, spin: spin) : nil
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

    /// Says that no work comes soon, so that threads which spin leave their processors at once to those that bring some.
    ///
    /// The next piece of work wakes them, if the work until the next rest is likely to take longer than waking does.
    public func rest() {
        guard let team else { return }
        // Where another thread computes, its work is what comes.
        _ = self.turn.withLockIfAvailable { _ in team.rest() }
    }

    /// Says that work comes soon after a rest, so that threads which sleep are awake when it does.
    public func expectWork() {
        guard let team else { return }
        _ = self.turn.withLockIfAvailable { _ in team.expect() }
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

    /// Computes `body` over parts, without the allocation that a closure takes which captures what it needs.
    ///
    /// - Parameters:
    ///   - parts: Number of parts, at most one for each thread.
    ///   - context: What the body needs, valid until this returns.
    ///   - body: Computes a range of parts, without capturing anything; each has its own ``scratch(ofPart:)``.
    func run(_ parts: Int, context: UnsafeRawPointer, body: @escaping (UnsafeRawPointer, Range<Int>) -> Void) {
        precondition(parts <= self.threadCount, "\(parts) parts for \(self.threadCount) threads")
        self.turn.withLock { _ in
            guard let team, parts > 1 else {
                body(context, 0..<parts)
                return
            }
            team.run(count: parts, context: context, body: body)
        }
    }

    /// The scratch memory of a part that is being computed: `Product.scratchFloats` floats, and `CK_STREAM_FLOATS` more.
    func scratch(ofPart part: Int) -> UnsafeMutablePointer<Float> { self.partMemory.part(part) }

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
