// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import SwitchyardTypes

/// The layout of a packed matrix in its one piece of memory, the same as in a file.
///
/// The memory starts at a multiple of 64 bytes, and so does each part. The parts follow each other without a gap:
///
/// 1. Panels, one for every 32 outputs. float32 and bfloat16: element `[input][32]`. int8: `[group][32][4]`, a group
///    being four inputs. The last panel and the last group are padded with zeros.
/// 2. int8 only, scales: a float32 per output, 32 per panel.
/// 3. int8 only, compensation: an int32 per output, 32 per panel, -128 times the sum of the output's weights. Sums
///    start with it where an instruction needs activations that are 128 too high.
///
/// All numbers are little-endian.
public struct PackedLayout: Sendable, Hashable {
    /// Outputs in one panel.
    public static let panelColumns = Int(CK_PANEL_COLUMNS)

    /// The version of this layout; files of another version are refused.
    ///
    /// Raise it with every change of what packing writes; a test knows what this version writes.
    public static let version = 1

    /// The alignment of a packed matrix in memory and files, in bytes.
    public static let alignment = 64

    /// Rows of the weight tensor, which are the columns of the product.
    public let outputs: Int

    /// Columns of the weight tensor: the length of every sum.
    public let inputs: Int

    /// How the elements are kept.
    public let dtype: DType

    /// Number of panels.
    public let panelCount: Int

    /// Offset of the scales, which is also the length of the panels, in bytes.
    let scalesOffset: Int

    /// Offset of the compensation, in bytes.
    let compensationOffset: Int

    /// Bytes of all parts.
    public let byteCount: Int

    /// Computes a layout; nil where `dtype` is not packed (`DType.isPacked`), a size is less than 1, the inputs are more
    /// than `dtype` allows, or the bytes exceed the address space.
    ///
    /// - Parameters:
    ///   - outputs: Rows of the weight tensor.
    ///   - inputs: Columns of the weight tensor.
    ///   - dtype: How the elements are kept.
    public init?(outputs: Int, inputs: Int, dtype: DType) {
        guard dtype.isPacked, outputs > 0, inputs > 0, inputs <= dtype.mostInputs else {
            return nil
        }
        let columns = PackedLayout.panelColumns
        let panels = (outputs - 1) / columns + 1
        let group = Int(CK_INT8_GROUP)
        let kept = dtype == .int8 ? ((inputs - 1) / group + 1) * group : inputs
        let (row, rowOverflow) = kept.multipliedReportingOverflow(by: columns * dtype.byteCount)
        let (all, overflow) = row.multipliedReportingOverflow(by: panels)
        // Half of the address space is far more than any machine has, and leaves room for the scales.
        guard !rowOverflow, !overflow, all < Int.max / 2, panels < Int.max / 1024 else {
            return nil
        }
        self.outputs = outputs
        self.inputs = inputs
        self.dtype = dtype
        self.panelCount = panels
        self.scalesOffset = all
        let scales = dtype == .int8 ? panels * columns * MemoryLayout<Float>.stride : 0
        self.compensationOffset = all + scales
        self.byteCount = all + 2 * scales
    }
}
