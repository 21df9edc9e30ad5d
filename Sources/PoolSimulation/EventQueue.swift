// SPDX-License-Identifier: Apache-2.0

import ExpertPooling

/// Future events, the earliest first; at equal times in the order they were planned.
///
/// A binary heap in an array. Times are nanoseconds since the simulation's beginning.
package struct EventQueue<Event> {
    private struct Entry {
        let time: Int64
        let order: UInt64
        let event: Event

        func isBefore(_ other: Entry) -> Bool {
            self.time != other.time ? self.time < other.time : self.order < other.order
        }
    }

    private var heap: [Entry] = []
    private var order: UInt64 = 0

    /// Creates a queue without events.
    package init() {}

    /// Whether nothing is planned.
    package var isEmpty: Bool { self.heap.isEmpty }

    /// Plans an event.
    package mutating func add(_ event: Event, at time: Int64) {
        self.order += 1
        let entry = Entry(time: time, order: self.order, event: event)
        self.heap.append(entry)
        var child = self.heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entry.isBefore(self.heap[parent]) else { break }
            self.heap[child] = self.heap[parent]
            child = parent
        }
        self.heap[child] = entry
    }

    /// Takes the next event out.
    package mutating func next() -> (time: Int64, event: Event)? {
        guard let first = self.heap.first, let last = self.heap.popLast() else { return nil }
        guard !self.heap.isEmpty else { return (first.time, first.event) }
        var parent = 0
        let count = self.heap.count
        while true {
            var child = 2 * parent + 1
            guard child < count else { break }
            if child + 1 < count, self.heap[child + 1].isBefore(self.heap[child]) { child += 1 }
            guard self.heap[child].isBefore(last) else { break }
            self.heap[parent] = self.heap[child]
            parent = child
        }
        self.heap[parent] = last
        return (first.time, first.event)
    }
}
