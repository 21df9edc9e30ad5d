// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// Rows of one width in their own memory, kept as float32 or as bfloat16.
///
/// Keys and values of attention are kept this way: written once and read in every later step.
public final class TypedRows: @unchecked Sendable {
    // Safety: a row is written by one thread before any other one reads it; the thread that shares rows synchronises
    // with their reader.

    /// Number of rows.
    public let rows: Int

    /// Number of columns, which is also the distance between the starts of two rows.
    public let columns: Int

    /// How the elements are kept.
    public let type: DType

    private let pointer: UnsafeMutableRawPointer

    /// Makes room for rows, each of which is written before it is read.
    ///
    /// - Parameters:
    ///   - rows: Number of rows, zero or more.
    ///   - columns: Number of columns, zero or more.
    ///   - type: How the elements are kept.
    public init(uninitializedRows rows: Int, columns: Int, type: DType) {
        precondition(rows >= 0 && columns >= 0, "there cannot be \(rows) rows of \(columns) elements")
        self.rows = rows
        self.columns = columns
        self.type = type
        self.pointer = MatrixMemory.take(rows * columns * type.byteCount)
    }

    deinit {
        MatrixMemory.give(self.pointer, self.byteCount)
    }

    /// Bytes of all rows.
    public var byteCount: Int { self.rows * self.columns * self.type.byteCount }

    /// Where a row starts; later rows follow it.
    ///
    /// - Parameter row: The row, up to `rows`.
    /// - Returns: The address, valid for as long as this object lives.
    public func address(row: Int) -> UnsafeMutableRawPointer {
        self.pointer + row * self.columns * self.type.byteCount
    }

    /// Writes a row.
    ///
    /// - Parameters:
    ///   - source: `columns` floats.
    ///   - row: The row, below `rows`.
    public func write(_ source: UnsafePointer<Float>, row: Int) {
        self.type.write(source, count: self.columns, to: self.address(row: row))
    }
}
