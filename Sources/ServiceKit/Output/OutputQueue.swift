// SPDX-License-Identifier: Apache-2.0

/// Texts that wait to be written, in order and bounded: what does not fit is counted, and said where it is missing.
struct OutputQueue: Sendable {
    /// How much may wait.
    struct Limits: Sendable, Hashable {
        /// Texts, usually lines.
        var texts = 4096
        /// Their bytes in UTF-8.
        var bytes = 1 << 20
    }

    private enum Entry: Sendable {
        case text(String)
        /// Texts that were dropped here.
        case gap(Int)
    }

    /// Texts to write at once.
    struct Batch: Sendable, Hashable {
        /// The texts, and a line in place of each gap.
        var text: String
        /// How many texts it has, without the lines about gaps.
        var count: Int
    }

    /// The most bytes of a batch, unless a single text has more.
    static let batchBytes = 1 << 16

    private let limits: Limits
    private var entries: [Entry] = []
    private var texts = 0
    private var bytes = 0
    /// Texts that were dropped so far.
    private(set) var droppedCount: UInt64 = 0

    /// Creates an empty queue.
    ///
    /// - Parameter limits: How much may wait.
    init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// Whether nothing waits, not even a gap.
    var isEmpty: Bool { self.entries.isEmpty }

    /// Adds a text, or drops it if it does not fit.
    mutating func append(_ text: String) {
        let size = text.utf8.count
        guard self.texts < self.limits.texts, size <= self.limits.bytes - self.bytes else {
            self.droppedCount += 1
            if case .gap(let count) = self.entries.last {
                self.entries[self.entries.count - 1] = .gap(count + 1)
            } else {
                self.entries.append(.gap(1))
            }
            return
        }
        self.entries.append(.text(text))
        self.texts += 1
        self.bytes += size
    }

    /// Counts texts that left the queue and could not be written.
    mutating func lost(_ count: Int) {
        self.droppedCount += UInt64(clamping: count)
    }

    /// Takes the oldest texts out.
    ///
    /// - Parameter note: The line that stands for dropped texts, by their number.
    /// - Returns: Nil if nothing waits.
    mutating func next(note: (Int) -> String) -> Batch? {
        guard !self.entries.isEmpty else { return nil }
        var batch = Batch(text: "", count: 0)
        var size = 0
        var taken = 0
        for entry in self.entries {
            switch entry {
            case .text(let text):
                let count = text.utf8.count
                guard taken == 0 || size + count <= Self.batchBytes else {
                    self.entries.removeFirst(taken)
                    return batch
                }
                batch.text += text
                batch.count += 1
                size += count
                self.texts -= 1
                self.bytes -= count
            case .gap(let count):
                batch.text += note(count)
            }
            taken += 1
        }
        self.entries.removeAll(keepingCapacity: true)
        return batch
    }
}
