// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// The deadlines of the calls of one connection, earliest first.
///
/// A call that ends early leaves its entry in the heap; entries of ended calls are skipped when they come up, and swept
/// when they outnumber the live ones. So one timer per connection is enough, and it is set for open calls alone.
struct DeadlineHeap: Sendable {
    private struct Entry {
        var deadline: NIODeadline
        var id: Int32
    }

    private var entries: [Entry] = []

    /// How many entries are held, those of ended calls included.
    var count: Int { self.entries.count }

    /// The earliest deadline, which may belong to a call that has ended.
    var earliest: NIODeadline? { self.entries.first?.deadline }

    /// Adds a call's deadline.
    mutating func insert(_ id: Int32, deadline: NIODeadline) {
        self.entries.append(Entry(deadline: deadline, id: id))
        var child = self.entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard self.entries[child].deadline < self.entries[parent].deadline else { break }
            self.entries.swapAt(child, parent)
            child = parent
        }
    }

    /// Removes and returns the call whose deadline has passed longest ago, if any has.
    mutating func popExpired(now: NIODeadline) -> Int32? {
        guard let first = self.entries.first, first.deadline <= now else { return nil }
        self.removeFirst()
        return first.id
    }

    /// Removes entries of ended calls until the earliest deadline belongs to an open one.
    ///
    /// - Parameter isLive: Whether a call is open.
    mutating func dropEnded(isLive: (Int32) -> Bool) {
        while let first = self.entries.first, !isLive(first.id) { self.removeFirst() }
    }

    private mutating func removeFirst() {
        let last = self.entries.removeLast()
        if !self.entries.isEmpty {
            self.entries[0] = last
            self.siftDown(from: 0)
        }
    }

    /// Drops entries of ended calls when they are more than half of a large heap.
    ///
    /// - Parameters:
    ///   - liveCount: How many calls are open.
    ///   - isLive: Whether a call is open.
    mutating func sweep(liveCount: Int, isLive: (Int32) -> Bool) {
        guard self.entries.count > 64 + 2 * liveCount else { return }
        self.entries.removeAll { !isLive($0.id) }
        for index in stride(from: self.entries.count / 2 - 1, through: 0, by: -1) { self.siftDown(from: index) }
    }

    private mutating func siftDown(from start: Int) {
        var parent = start
        while true {
            let left = 2 * parent + 1
            guard left < self.entries.count else { return }
            let right = left + 1
            let child =
                right < self.entries.count && self.entries[right].deadline < self.entries[left].deadline ? right : left
            guard self.entries[child].deadline < self.entries[parent].deadline else { return }
            self.entries.swapAt(child, parent)
            parent = child
        }
    }
}
