// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// The greatest of many scores, found in one pass without sorting them all.
///
/// A heap of the best so far, the worst of them on top: most scores are compared with one number and skipped. Of equal
/// scores the one with the lowest index wins.
struct TopSelection {
    /// A score and where it comes from.
    struct Entry: Equatable {
        /// The score.
        var score: Float

        /// The caller's name for it.
        var index: Int

        /// Whether this entry ranks below another.
        func isWorse(than other: Entry) -> Bool {
            self.score < other.score || (self.score == other.score && self.index > other.index)
        }
    }

    private let capacity: Int
    private var heap: [Entry] = []

    /// Creates an empty selection.
    ///
    /// - Parameter capacity: How many entries to find, 1 or more.
    init(capacity: Int) {
        self.capacity = capacity
        self.heap.reserveCapacity(min(capacity, 4_096))
    }

    /// A score that is not above this one cannot enter, given that entries are offered by ascending index.
    var threshold: Float {
        self.heap.count < self.capacity ? -.infinity : self.heap[0].score
    }

    /// The entries, best first.
    var descending: [Entry] {
        self.heap.sorted { $1.isWorse(than: $0) }
    }

    /// Offers a score; one of minus infinity never enters.
    ///
    /// - Parameters:
    ///   - score: The score, a number.
    ///   - index: The caller's name for it, above every index offered before.
    mutating func offer(_ score: Float, index: Int) {
        guard score > self.threshold else { return }
        let entry = Entry(score: score, index: index)
        if self.heap.count < self.capacity {
            self.heap.append(entry)
            self.siftUp()
        } else {
            self.heap[0] = entry
            self.siftDown()
        }
    }

    private mutating func siftUp() {
        var child = self.heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard self.heap[child].isWorse(than: self.heap[parent]) else { return }
            self.heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func siftDown() {
        var parent = 0
        while true {
            var worst = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < self.heap.count {
                if self.heap[child].isWorse(than: self.heap[worst]) { worst = child }
            }
            guard worst != parent else { return }
            self.heap.swapAt(worst, parent)
            parent = worst
        }
    }
}
