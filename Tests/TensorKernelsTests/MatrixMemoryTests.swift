// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TensorKernels

@Suite("Memory of matrices")
struct MatrixMemoryTests {
    @Test("sizes grow by an eighth at most, and hold the requested bytes")
    func sizes() {
        for bytes in [1, 64, 100, 16_383, 16_384, 16_385, 20_000, 1 << 20, (1 << 20) + 1, 25_165_824, 25_165_825] {
            let size = MatrixMemory.size(bytes)
            #expect(size >= bytes)
            #expect(size <= max(64, bytes + bytes / 8 + 1), "\(bytes)")
            // Giving memory back computes the same size from the same bytes.
            #expect(MatrixMemory.size(size) == size, "\(bytes)")
        }
    }

    @Test("returned memory is reused, and a matrix of zeros holds none of its old content")
    func reuse() {
        // A size that no other test uses.
        let columns = 70_001
        var first: FloatMatrix? = FloatMatrix(uninitializedRows: 3, columns: columns)
        let address = first?.pointer
        first?.pointer.update(repeating: .nan, count: 3 * columns)
        first = nil
        let second = FloatMatrix(rows: 3, columns: columns)
        #expect(second.pointer == address)
        #expect(second.row(2).allSatisfy { $0 == 0 })
    }

    @Test("the kept memory is bounded")
    func bound() {
        let half = MatrixMemory.limit / 2
        let pieces = (0..<3).map { _ in MatrixMemory.take(half) }
        for piece in pieces {
            MatrixMemory.give(piece, half)
        }
        #expect(MatrixMemory.kept <= MatrixMemory.limit)
        // Both that were kept go back to the allocator, so that later tests have room.
        for _ in 0..<2 {
            MatrixMemory.take(half).deallocate()
        }
    }
}
