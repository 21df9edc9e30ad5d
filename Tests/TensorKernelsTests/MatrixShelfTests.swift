// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("Reused matrices", .serialized)
struct MatrixShelfTests {
    @Test("a matrix in use is never handed out, and a free one is reused")
    func reuse() {
        // A shape that no other test uses.
        let (rows, columns) = (3, 1237)
        var held = (0..<8).map { _ in FloatMatrix.temporary(rows: rows, columns: columns) }
        let addresses = Set(held.map(\.pointer))
        #expect(addresses.count == 8)
        for (index, matrix) in held.enumerated() {
            matrix.pointer.update(repeating: Float(index), count: rows * columns)
        }
        let kept = held[5]
        held = []
        let again = (0..<7).map { _ in FloatMatrix.temporary(rows: rows, columns: columns) }
        #expect(Set(again.map(\.pointer)) == addresses.subtracting([kept.pointer]))
        for matrix in again { matrix.pointer.update(repeating: -1, count: rows * columns) }
        #expect(kept.values.allSatisfy { $0 == 5 })
        let another = FloatMatrix.temporary(rows: rows, columns: columns)
        #expect(!addresses.contains(another.pointer))
    }

    @Test("the kept memory stays within the limit, whatever the shapes, and more matrices are still available")
    func limit() {
        var held: [FloatMatrix] = []
        for columns in 100_000..<100_400 {
            held.append(FloatMatrix.temporary(rows: 1, columns: columns))
            #expect(MatrixShelf.elements <= MatrixShelf.limit)
        }
        // More than the limit is in use, each with memory of its own.
        #expect(held.reduce(0) { $0 + $1.columns } > MatrixShelf.limit)
        #expect(Set(held.map(\.pointer)).count == held.count)
        held = []
        for rows in 1..<400 {
            _ = FloatMatrix.temporary(rows: rows, columns: 640)
            #expect(MatrixShelf.elements <= MatrixShelf.limit)
        }
    }

    @Test("several threads that make and drop matrices never share one")
    func threads() {
        let pool = WorkPool(threads: 4)
        pool.run(4) { range in
            for part in range {
                for round in 0..<2000 {
                    let matrix = FloatMatrix.temporary(rows: 1, columns: 641)
                    let mark = Float(part * 10_000 + round)
                    matrix.pointer.update(repeating: mark, count: 641)
                    let other = FloatMatrix.temporary(rows: 1, columns: 641)
                    other.pointer.update(repeating: -mark, count: 641)
                    let isOwn = [0, 320, 640].allSatisfy { matrix.pointer[$0] == mark && other.pointer[$0] == -mark }
                    #expect(isOwn)
                }
            }
        }
    }
}
