// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Matrices of earlier layers and steps, handed out again once they are no longer in use.
///
/// A decoder step makes hundreds of small matrices of a few shapes, the same ones in every step. Here they are made
/// once: the shelf keeps a reference to each, and one with no other reference is free.
enum MatrixShelf {
    /// Elements of the largest matrix that is kept; the memory of larger ones is kept by ``MatrixMemory``.
    static let largest = 1 << 18

    /// Elements of all matrices that are kept, 64 MiB; beyond that, free ones are released.
    static let limit = 1 << 24

    private struct Shape: Hashable {
        let rows: Int
        let columns: Int

        /// Elements, with something for the object itself, so that empty matrices are not kept without limit.
        var elements: Int { self.rows * self.columns + 64 }
    }

    /// The matrices of one shape.
    private final class Bucket {
        var matrices: [FloatMatrix] = []
        /// Where to look first: after the one that was handed out last.
        var next = 0

        func free() -> FloatMatrix? {
            for offset in self.matrices.indices {
                let index = (self.next + offset) % self.matrices.count
                if isKnownUniquelyReferenced(&self.matrices[index]) {
                    // Makes visible what others read and wrote before they released it.
                    atomicMemoryFence(ordering: .acquiring)
                    self.next = index + 1
                    return self.matrices[index]
                }
            }
            return nil
        }

        func dropFree() {
            var kept: [FloatMatrix] = []
            for index in self.matrices.indices where !isKnownUniquelyReferenced(&self.matrices[index]) {
                kept.append(self.matrices[index])
            }
            self.matrices = kept
            self.next = 0
        }
    }

    private struct Shelf {
        var buckets: [Shape: Bucket] = [:]
        var elements = 0

        /// Releases the matrices that are not in use.
        mutating func dropFree() {
            for bucket in self.buckets.values { bucket.dropFree() }
            self.buckets = self.buckets.filter { !$0.value.matrices.isEmpty }
            self.elements = self.buckets.reduce(0) { $0 + $1.value.matrices.count * $1.key.elements }
        }
    }

    private static let shelf = Mutex(Shelf())

    /// Elements of the matrices that are kept, handed out or free.
    static var elements: Int { self.shelf.withLock { $0.elements } }

    /// Hands out a matrix whose elements the caller writes before reading any.
    static func take(rows: Int, columns: Int) -> FloatMatrix {
        guard rows * columns <= self.largest else {
            return FloatMatrix(uninitializedRows: rows, columns: columns)
        }
        let shape = Shape(rows: rows, columns: columns)
        return self.shelf.withLock { shelf in
            if let free = shelf.buckets[shape]?.free() {
                return free
            }
            let matrix = FloatMatrix(uninitializedRows: rows, columns: columns)
            if shelf.elements + shape.elements > self.limit {
                shelf.dropFree()
                // All are in use: another matrix is freed when its holder releases it.
                guard shelf.elements + shape.elements <= self.limit else {
                    return matrix
                }
            }
            let bucket = shelf.buckets[shape] ?? Bucket()
            shelf.buckets[shape] = bucket
            bucket.matrices.append(matrix)
            shelf.elements += shape.elements
            return matrix
        }
    }
}

extension FloatMatrix {
    /// A matrix for a step's results, whose elements the caller writes before reading any: reused from an earlier step
    /// where one of the shape is free.
    ///
    /// - Parameters:
    ///   - rows: Number of rows, zero or more.
    ///   - columns: Number of columns, zero or more.
    /// - Returns: A matrix that is not in use elsewhere.
    public static func temporary(rows: Int, columns: Int) -> FloatMatrix {
        MatrixShelf.take(rows: rows, columns: columns)
    }
}
