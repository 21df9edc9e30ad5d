// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// Packs weight matrices into the form that a program's kernels read, for parts that are served straight from their
/// files.
///
/// This library knows how packed matrices are stored and checked, not what is inside.
public protocol MatrixPacking: Sendable {
    /// The form that it packs into.
    var form: PackedForm { get }

    /// What packing a matrix would give, without doing it.
    ///
    /// - Parameters:
    ///   - dtype: The type that the matrix has in the checkpoint.
    ///   - rows: Rows of the matrix.
    ///   - columns: Columns of the matrix.
    /// - Returns: The type of the packed elements, `F32`, `BF16` or `I8`, and the number of bytes, a multiple of
    ///   ``PackedForm/alignment``; nil for a matrix that cannot be packed.
    func size(of dtype: DType, rows: Int, columns: Int) -> (dtype: DType, byteCount: Int)?

    /// Packs a matrix.
    ///
    /// - Parameters:
    ///   - matrix: `[rows, columns]` in F32, BF16 or F16, one for which ``size(of:rows:columns:)`` is not nil.
    ///   - body: Gets that many bytes, valid until it returns.
    /// - Throws: What the body throws.
    func pack(
        _ matrix: TensorView,
        _ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> Void
    ) throws(CheckpointError)
}

/// The form in which a part's matrices are packed.
public struct PackedForm: Codable, Sendable, Hashable {
    /// The alignment of each packed matrix's offset and length, in bytes.
    public static let alignment = SafetensorsWriter.alignment

    /// The version of the form; a program reads only one.
    public var version: Int
    /// Rows of a matrix in one panel.
    public var panelRows: Int

    /// Describes a form.
    ///
    /// - Parameters:
    ///   - version: The version of the form.
    ///   - panelRows: Rows of a matrix in one panel.
    public init(version: Int, panelRows: Int) {
        self.version = version
        self.panelRows = panelRows
    }
}
