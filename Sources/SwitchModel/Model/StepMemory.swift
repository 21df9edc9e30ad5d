// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

// Lists that calls of the model need, kept from one layer and step to the next: where a step is like the one before, it
// allocates none. Lists have value semantics: one that a copy is left of, such as an executor's of a plan, is not written
// over, but made anew. Loops of a step go over indices: in a build without optimisation, whose allocations the tests limit,
// other loops allocate for every element.

/// The lists of a sparse layer between its halves.
final class LayerMemory {
    var decision = Router.Decision()
    var plan = DispatchPlan()
    /// For ``DispatchPlan/sort(_:probabilities:sequences:given:expertCount:limit:order:layer:counts:)``.
    var counts: [Int] = []
    /// Which rows an answer covers.
    var ranges: [Range<Int>] = []
    /// What executors keep.
    let executor = ExecutorMemory()
}

/// The lists of a micro-batch of a decoder call.
final class LaneMemory: @unchecked Sendable {
    // Safety: used by one call at a time, the one that took it from its shelf.

    var positions: [DecoderPosition] = []
    var last: [Int] = []
    var sequences: [Int32] = []
    var tokens: [Int32] = []
    var caches: [DecoderCache] = []
    var encoded: [EncodedSequence] = []
    /// For each row of a call a token that it must not choose.
    var excluded: [Int?] = []
    /// Biases of the decoder's distances; nil before the first call.
    var bias: RelativeBias.Span?
    let layer = LayerMemory()

    /// Lists some rows of a call, and makes room in their caches.
    ///
    /// - Parameter rows: The rows, by their indices in the whole call.
    /// - Returns: The highest position of a token, counted from 1, and whether routes are given for any of them.
    func take(_ rows: ArraySlice<DecoderInput>) -> (length: Int, hasRoutes: Bool) {
        self.positions.removeAll(keepingCapacity: true)
        self.last.removeAll(keepingCapacity: true)
        self.sequences.removeAll(keepingCapacity: true)
        self.tokens.removeAll(keepingCapacity: true)
        self.releaseObjects()
        var (length, hasRoutes) = (1, false)
        for index in rows.indices {
            let row = rows[index]
            for offset in row.tokens.indices {
                self.positions.append(DecoderPosition(row: self.caches.count, position: row.cache.length + offset))
                self.sequences.append(Int32(index))
                self.tokens.append(row.tokens[offset])
            }
            length = max(length, row.cache.length + row.tokens.count)
            self.last.append(self.positions.count - 1)
            row.cache.reserve(row.tokens.count)
            self.caches.append(row.cache)
            if let sequence = row.cache.sequence { self.encoded.append(sequence) }
            hasRoutes = hasRoutes || row.routes != nil
        }
        return (length, hasRoutes)
    }

    /// Releases the objects of the call, so that they do not live on in memory that waits for the next.
    func releaseObjects() {
        self.caches.removeAll(keepingCapacity: true)
        self.encoded.removeAll(keepingCapacity: true)
    }
}

/// Memory of micro-batches that is not in use.
final class LaneShelf: Sendable {
    /// Tokens of the largest micro-batch whose memory is kept: a step of that many sequences, no long prompt.
    private static let mostTokens = 1024

    /// More are kept only by calls at the same time, or of more micro-batches.
    private static let mostKept = 16

    private let idle = Mutex<[LaneMemory]>([])

    /// Takes memory from the shelf.
    ///
    /// - Returns: Memory for the caller alone. Its lists hold what another call left in them.
    func take() -> LaneMemory {
        self.idle.withLock { $0.popLast() } ?? LaneMemory()
    }

    /// Puts memory on the shelf.
    ///
    /// - Parameter memory: What ``take()`` returned; it must no longer be in use.
    func giveBack(_ memory: LaneMemory) {
        guard memory.positions.capacity <= Self.mostTokens else { return }
        memory.releaseObjects()
        self.idle.withLock { idle in
            if idle.count < Self.mostKept { idle.append(memory) }
        }
    }
}
