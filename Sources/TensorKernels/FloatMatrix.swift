// SPDX-License-Identifier: Apache-2.0

/// A row-major float32 matrix in its own memory, aligned to 64 bytes.
///
/// Rows are contiguous: element `(r, c)` lies at `pointer[r * columns + c]`. The class is the unit in which activations
/// travel between layers; a matrix is filled before it is passed on, and never written afterwards.
public final class FloatMatrix: @unchecked Sendable {
    // Safety: written only by its creator before it is shared; read-only from then on.

    /// Number of rows.
    public let rows: Int

    /// Number of columns, which is also the distance between the starts of two rows.
    public let columns: Int

    /// The first element.
    ///
    /// Valid for `rows * columns` elements, and for as long as this object lives.
    public let pointer: UnsafeMutablePointer<Float>

    /// Creates a matrix of zeros.
    ///
    /// - Parameters:
    ///   - rows: Number of rows, zero or more.
    ///   - columns: Number of columns, zero or more.
    public init(rows: Int, columns: Int) {
        precondition(rows >= 0 && columns >= 0, "a matrix cannot have \(rows) x \(columns) elements")
        self.rows = rows
        self.columns = columns
        let count = max(rows * columns, 16)
        let raw = MatrixMemory.take(count * MemoryLayout<Float>.stride)
        self.pointer = raw.bindMemory(to: Float.self, capacity: count)
        self.pointer.update(repeating: 0, count: count)
    }

    /// Creates a matrix whose elements the caller writes before reading any.
    ///
    /// - Parameters:
    ///   - rows: Number of rows, zero or more.
    ///   - columns: Number of columns, zero or more.
    public init(uninitializedRows rows: Int, columns: Int) {
        precondition(rows >= 0 && columns >= 0, "a matrix cannot have \(rows) x \(columns) elements")
        self.rows = rows
        self.columns = columns
        let count = max(rows * columns, 16)
        let raw = MatrixMemory.take(count * MemoryLayout<Float>.stride)
        self.pointer = raw.bindMemory(to: Float.self, capacity: count)
    }

    deinit {
        let count = max(self.rows * self.columns, 16)
        MatrixMemory.give(UnsafeMutableRawPointer(self.pointer), count * MemoryLayout<Float>.stride)
    }

    /// One row, as a buffer of `columns` elements that lives as long as the matrix does.
    ///
    /// - Parameter index: The row's index, below `rows`.
    /// - Returns: The row's elements.
    public func row(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
        precondition(index >= 0 && index < self.rows, "row \(index) of a matrix of \(self.rows) rows")
        return UnsafeMutableBufferPointer(start: self.pointer + index * self.columns, count: self.columns)
    }
}
