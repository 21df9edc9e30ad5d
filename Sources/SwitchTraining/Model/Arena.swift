// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import TensorKernels

/// Rows of floats in an arena.
struct Rows {
    let pointer: UnsafeMutablePointer<Float>
    let count: Int
    let columns: Int
    /// Elements between the starts of two rows.
    let stride: Int

    /// The first element of a row.
    func row(_ index: Int) -> UnsafeMutablePointer<Float> { self.pointer + index * self.stride }

    /// Some of the rows.
    func slice(_ range: Range<Int>) -> Rows {
        Rows(pointer: self.row(range.lowerBound), count: range.count, columns: self.columns, stride: self.stride)
    }

    /// The rows as a product's operand.
    var operand: MatrixOperand { MatrixOperand(self.pointer, stride: self.stride) }

    /// The transpose as a product's operand.
    var transposed: MatrixOperand { MatrixOperand(self.pointer, stride: self.stride, isTransposed: true) }
}

/// Memory of a step's activations, taken from the front and given back in the opposite order.
///
/// It grows when it must and is kept from step to step, so that steps of one size allocate nothing. A step that made it
/// grow by several pieces has them put together at its end, with room for half as much again: what is not used takes no
/// memory.
final class Arena {
    /// A place to give memory back to.
    struct Mark {
        fileprivate var chunk: Int
        fileprivate var used: Int
        fileprivate var taken: Int

        /// Where the arena begins.
        static var start: Mark { Mark(chunk: 0, used: 0, taken: 0) }
    }

    private struct Chunk {
        let memory: LargeMemory
        let start: UnsafeMutablePointer<Float>
        let count: Int

        init(_ count: Int) {
            self.memory = LargeMemory(byteCount: count * MemoryLayout<Float>.stride)
            self.start = self.memory.start.bindMemory(to: Float.self, capacity: count)
            self.count = count
        }
    }

    private static let leastChunk = 4 << 20
    private static let alignment = 16
    private var chunks: [Chunk] = []
    private var chunk = 0
    private var used = 0
    /// Floats that are taken at the moment, in all chunks.
    private var taken = 0
    private var mostTaken = 0

    /// Where the next memory begins.
    var mark: Mark { Mark(chunk: self.chunk, used: self.used, taken: self.taken) }

    /// Gives back all that was taken, and leaves the memory where it is.
    func restart() { self.resume(.start) }

    /// Goes on from a mark, with what lies before it as it is.
    private func resume(_ mark: Mark) {
        self.chunk = mark.chunk
        self.used = mark.used
        self.taken = mark.taken
    }

    /// Gives back all that was taken since a mark.
    func release(to mark: Mark) { self.resume(mark) }

    /// Gives back everything, and puts the pieces of memory together.
    func end() {
        self.resume(.start)
        if self.chunks.count > 1 {
            self.chunks.removeAll()
            self.chunks.append(Chunk(self.mostTaken + self.mostTaken / 2))
        }
    }

    /// Bytes that were taken at once, at most.
    var peakByteCount: Int { self.mostTaken * MemoryLayout<Float>.stride }

    /// Rows with undefined contents.
    func rows(_ count: Int, columns: Int) -> Rows {
        // Rows a multiple of 4 KiB apart would all fall into the same set of the first-level cache.
        let stride = columns % 512 == 0 ? columns + 16 : columns
        return Rows(pointer: self.floats(count * stride), count: count, columns: columns, stride: stride)
    }

    /// Floats with undefined contents, at a multiple of 64 bytes.
    func floats(_ count: Int) -> UnsafeMutablePointer<Float> {
        let needed = max((count + Self.alignment - 1) / Self.alignment * Self.alignment, Self.alignment)
        self.taken += needed
        self.mostTaken = max(self.mostTaken, self.taken)
        while self.chunk < self.chunks.count {
            if self.used + needed <= self.chunks[self.chunk].count {
                defer { self.used += needed }
                return self.chunks[self.chunk].start + self.used
            }
            self.chunk += 1
            self.used = 0
        }
        self.chunks.append(Chunk(max(needed, Self.leastChunk)))
        self.used = needed
        return self.chunks[self.chunk].start
    }

    /// Doubles of zero.
    func zeroDoubles(_ count: Int) -> UnsafeMutablePointer<Double> {
        let raw = UnsafeMutableRawPointer(self.floats(2 * count))
        let doubles = raw.bindMemory(to: Double.self, capacity: count)
        doubles.update(repeating: 0, count: count)
        return doubles
    }
}

/// Part of an arena's contents as bfloat16 numbers, and where they belong.
struct PackedActivations {
    fileprivate let numbers: UnsafeMutableRawPointer
    fileprivate let end: Arena.Mark
}

extension Arena {
    /// What has been taken, chunk by chunk.
    private func pieces(until end: Mark) -> [(start: UnsafeMutablePointer<Float>, count: Int)] {
        self.chunks.prefix(end.chunk + 1).enumerated()
            .map { index, chunk in (chunk.start, index == end.chunk ? end.used : chunk.count) }
    }

    /// Copies all that has been taken to another arena as bfloat16 numbers, which they are already, and begins again.
    func pack(into arena: Arena) -> PackedActivations {
        let end = self.mark
        let pieces = self.pieces(until: end)
        let count = pieces.reduce(0) { $0 + $1.count }
        let numbers = UnsafeMutableRawPointer(arena.floats((count + 1) / 2))
        var next = numbers
        for piece in pieces {
            DType.bfloat16.write(piece.start, count: piece.count, to: next)
            next += piece.count * DType.bfloat16.byteCount
        }
        self.restart()
        return PackedActivations(numbers: numbers, end: end)
    }

    /// Puts numbers back to where they were, so that pointers to them hold again.
    func unpack(_ packed: PackedActivations) {
        var next = packed.numbers
        for piece in self.pieces(until: packed.end) {
            DType.bfloat16.read(next, count: piece.count, into: piece.start)
            next += piece.count * DType.bfloat16.byteCount
        }
        self.resume(packed.end)
    }
}
