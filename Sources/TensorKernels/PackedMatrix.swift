// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// The element type in which a packed matrix is kept.
public enum PackedDType: Sendable, Hashable, CaseIterable {
    /// Four bytes an element.
    case float32

    /// Two bytes an element. Widening to float32 is exact, so a product with bfloat16 weights is bit-identical to one
    /// with the same weights kept as float32.
    case bfloat16

    var code: Int32 {
        self == .float32 ? Int32(CK_TYPE_F32) : Int32(CK_TYPE_BF16)
    }

    /// Bytes of one element.
    public var byteCount: Int {
        self == .float32 ? 4 : 2
    }
}

/// Weights `[outputs, inputs]` of a product `y = x W^T`, packed once so that the product reads them front to back.
///
/// 32 consecutive outputs form a panel; inside a panel the elements lie as `[inputs][32]`. The last panel is filled up
/// with zeros. See `WorkPool.run(_:)` for what is computed with it.
public final class PackedMatrix: @unchecked Sendable {
    // Safety: written in init only; read-only from then on.

    /// Outputs in one panel.
    static let panelColumns = Int(CK_PANEL_COLUMNS)

    /// Rows of the weight tensor, which are the columns of the product.
    public let outputs: Int

    /// Columns of the weight tensor: the length of every sum.
    public let inputs: Int

    /// How the elements are kept.
    public let dtype: PackedDType

    let panelCount: Int
    let storage: UnsafeMutableRawPointer

    /// Bytes that the packed weights take.
    public var byteCount: Int {
        self.panelCount * self.inputs * PackedMatrix.panelColumns * self.dtype.byteCount
    }

    /// Packs a row-major weight tensor.
    ///
    /// - Parameters:
    ///   - source: `outputs * inputs` elements of `sourceType`; need not be aligned.
    ///   - sourceType: Element type of the source.
    ///   - outputs: Rows of the tensor, at least 1.
    ///   - inputs: Columns of the tensor, at least 1.
    ///   - dtype: How to keep the elements. float32 and float16 sources are rounded to nearest even for `bfloat16`.
    ///   - pool: Threads that share the work; none when omitted.
    public init(
        packing source: UnsafeRawBufferPointer,
        as sourceType: ElementType,
        outputs: Int,
        inputs: Int,
        dtype: PackedDType,
        pool: WorkPool? = nil
    ) {
        precondition(outputs > 0 && inputs > 0, "cannot pack a tensor of \(outputs) x \(inputs) elements")
        precondition(
            source.count == outputs * inputs * sourceType.byteCount,
            "\(source.count) bytes are not \(outputs) x \(inputs) elements of \(sourceType)"
        )
        self.outputs = outputs
        self.inputs = inputs
        self.dtype = dtype
        let panels = (outputs + PackedMatrix.panelColumns - 1) / PackedMatrix.panelColumns
        self.panelCount = panels
        let bytes = panels * inputs * PackedMatrix.panelColumns * dtype.byteCount
        let storage = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        self.storage = storage
        let pack = { (range: Range<Int>) in
            ck_pack(
                source.baseAddress,
                sourceType.code,
                inputs,
                outputs,
                storage,
                dtype.code,
                range.lowerBound,
                range.upperBound
            )
        }
        if let pool {
            pool.run(panels, body: pack)
        } else {
            pack(0..<panels)
        }
    }

    deinit {
        self.storage.deallocate()
    }

    /// Computes one product on the calling thread alone.
    ///
    /// - Parameters:
    ///   - input: `rows` rows of `inputs` floats, contiguous.
    ///   - rows: Number of rows.
    ///   - output: Room for `rows` rows of `outputs` floats, contiguous.
    ///   - relu: Whether negative results become 0.
    ///   - level: The instruction set.
    public func multiply(
        _ input: UnsafePointer<Float>,
        rows: Int,
        into output: UnsafeMutablePointer<Float>,
        relu: Bool = false,
        level: KernelLevel = .best
    ) {
        let product = Product(self, input: input, rows: rows, output: output, relu: relu)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Product.scratchFloats) { scratch in
            guard let scratch = scratch.baseAddress else {
                return
            }
            product.compute(panels: 0..<self.panelCount, level: level, scratch: scratch)
        }
    }
}
