// SPDX-License-Identifier: Apache-2.0

/// Brings weight matrices into the form in which a program's kernels read them, for parts that are served as they lie.
///
/// This library knows how packed matrices are filed and checked, not what is inside.
public protocol MatrixPacking: Sendable {
    /// The form's version and the width of its panels.
    var layout: PackedLayout { get }

    /// What packing a matrix will give, without doing it.
    ///
    /// - Parameters:
    ///   - dtype: The type that the matrix has in the checkpoint.
    ///   - rows: Rows of the matrix.
    ///   - columns: Columns of the matrix.
    /// - Returns: The type of the packed elements, `F32`, `BF16` or `I8`, and the number of bytes, a multiple of
    ///   ``PackedLayout/alignment``.
    func form(of dtype: TensorDType, rows: Int, columns: Int) -> (dtype: TensorDType, byteCount: Int)

    /// Packs a matrix.
    ///
    /// - Parameter matrix: `[rows, columns]` in F32, BF16 or F16.
    /// - Returns: As many bytes as ``form(of:rows:columns:)`` says.
    func pack(_ matrix: TensorView) -> PackedBytes
}

/// Packed elements in memory that somebody owns.
public struct PackedBytes: Sendable {
    // Safety: read-only memory that `owner` keeps; nobody writes to it after this value was made.
    nonisolated(unsafe) let bytes: UnsafeRawBufferPointer
    let owner: any AnyObject & Sendable

    /// Lends memory.
    ///
    /// - Parameters:
    ///   - bytes: The memory, which is not written to any more.
    ///   - owner: Keeps the memory as long as it lives.
    public init(_ bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
        self.bytes = bytes
        self.owner = owner
    }
}

/// The form in which a part's matrices are packed.
public struct PackedLayout: Codable, Sendable, Hashable {
    /// Packed matrices begin at multiples of so many bytes, and their lengths are multiples of it.
    public static let alignment = SafetensorsWriter.alignment

    /// The version of the form; a program reads one alone.
    public var version: Int
    /// Rows of a matrix that lie together.
    public var panelRows: Int

    /// Describes a form.
    ///
    /// - Parameters:
    ///   - version: The version of the form.
    ///   - panelRows: Rows of a matrix that lie together.
    public init(version: Int, panelRows: Int) {
        self.version = version
        self.panelRows = panelRows
    }
}
