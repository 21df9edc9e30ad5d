// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// What an event loop has to do besides its sockets, and when: a pure machine.
///
/// Work is done in the order in which it came; timed work in the order of its times, and of its coming where those are equal.
struct LoopAgenda<Work> {
    /// The place of timed work.
    typealias TimerID = UInt64

    private struct Entry: Comparable {
        var due: NIODeadline
        var id: TimerID

        static func < (first: Self, second: Self) -> Bool {
            first.due == second.due ? first.id < second.id : first.due < second.due
        }
    }

    /// Entries of cancelled work are dropped when they come up, or when they are more than this and half of all.
    private static var toleratedEntries: Int { 64 }

    private var ready: [Work] = []
    /// A heap, earliest first.
    private var entries: [Entry] = []
    private var timed: [TimerID: Work] = [:]
    private var nextID: TimerID = 0
    /// Whether the driver has been told of what came, and has not heard it yet.
    private(set) var isRung = false
    /// Whether timed work is refused.
    private(set) var isEnded = false

    init() {}

    /// Whether there is work to do at once.
    var hasReady: Bool { !self.ready.isEmpty }

    /// How much work waits for its time.
    var timerCount: Int { self.timed.count }

    /// When the earliest timed work is due; it may have been cancelled.
    var nextDue: NIODeadline? { self.entries.first?.due }

    /// Adds work to do at once.
    mutating func add(_ work: Work) { self.ready.append(work) }

    /// Adds work for a time.
    ///
    /// - Returns: Its place; nil if the loop has ended.
    mutating func add(_ work: Work, at due: NIODeadline) -> TimerID? {
        guard !self.isEnded else { return nil }
        let id = self.nextID
        self.nextID += 1
        self.timed[id] = work
        self.push(Entry(due: due, id: id))
        return id
    }

    /// Takes timed work away.
    ///
    /// - Returns: The work, if it has not been done.
    mutating func cancel(_ id: TimerID) -> Work? {
        guard let work = self.timed.removeValue(forKey: id) else { return nil }
        self.sweepIfDue()
        return work
    }

    /// Takes all work that is due.
    ///
    /// - Parameters:
    ///   - work: Gets it, in its order; empty before.
    ///   - now: The time.
    mutating func takeReady(into work: inout [Work], now: NIODeadline) {
        swap(&self.ready, &work)
        while let first = self.entries.first {
            // What was cancelled is dropped as soon as it is first, so that no timer is set for it.
            guard let due = self.timed[first.id] else {
                self.popFirst()
                continue
            }
            guard first.due <= now else { break }
            self.popFirst()
            self.timed[first.id] = nil
            work.append(due)
        }
        self.sweepIfDue()
    }

    /// Work came from another thread.
    ///
    /// - Returns: Whether the driver must be told; not if that has been done and it has not heard it.
    mutating func ring() -> Bool {
        defer { self.isRung = true }
        return !self.isRung
    }

    /// The driver hears that work came, and will look for it.
    mutating func heard() { self.isRung = false }

    /// No more timed work is taken.
    ///
    /// - Returns: What waited for its time.
    mutating func end() -> [Work] {
        self.isEnded = true
        defer {
            self.timed = [:]
            self.entries = []
        }
        return self.timed.sorted { $0.key < $1.key }.map(\.value)
    }

    /// Checks what must hold between any two calls.
    ///
    /// - Returns: What does not hold; nil if all does.
    func checkInvariants() -> String? {
        var broken: [String] = []
        for child in self.entries.indices.dropFirst() where self.entries[child] < self.entries[(child - 1) / 2] {
            broken.append("entry \(child) is earlier than its parent")
        }
        let ids = self.entries.map(\.id)
        if Set(ids).count != ids.count { broken.append("an entry is there twice") }
        if !Set(self.timed.keys).isSubset(of: ids) { broken.append("timed work has no entry") }
        if self.entries.count > max(Self.toleratedEntries, 2 * self.timed.count) {
            broken.append("\(self.entries.count) entries for \(self.timed.count) timers")
        }
        if self.isEnded && !self.timed.isEmpty { broken.append("timed work after the end") }
        return broken.first
    }

    // MARK: - The heap

    private mutating func push(_ entry: Entry) {
        self.entries.append(entry)
        var child = self.entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard self.entries[child] < self.entries[parent] else { break }
            self.entries.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func popFirst() {
        let last = self.entries.removeLast()
        guard !self.entries.isEmpty else { return }
        self.entries[0] = last
        self.siftDown(from: 0)
    }

    private mutating func sweepIfDue() {
        guard self.entries.count > Self.toleratedEntries, self.entries.count > 2 * self.timed.count else { return }
        self.entries.removeAll { self.timed[$0.id] == nil }
        for index in stride(from: self.entries.count / 2 - 1, through: 0, by: -1) { self.siftDown(from: index) }
    }

    private mutating func siftDown(from start: Int) {
        var parent = start
        while true {
            let left = 2 * parent + 1
            guard left < self.entries.count else { return }
            let right = left + 1
            let child = right < self.entries.count && self.entries[right] < self.entries[left] ? right : left
            guard self.entries[child] < self.entries[parent] else { return }
            self.entries.swapAt(child, parent)
            parent = child
        }
    }
}

extension LoopAgenda: Sendable where Work: Sendable {}
