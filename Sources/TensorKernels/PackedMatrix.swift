// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import SwitchyardTypes

/// Weights `[outputs, inputs]` of a product `y = x W^T`, packed once so that the product reads them front to back.
///
/// See `PackedLayout` for the layout, and `WorkPool.run(_:)` for what is computed with them.
public final class PackedMatrix: @unchecked Sendable {
    // Safety: written in init only; read-only from then on.

    /// Where the parts lie.
    public let layout: PackedLayout

    let storage: UnsafeRawPointer

    /// The owner of the memory, where it is not this object.
    private let owner: AnyObject?

    /// Rows of the weight tensor, which are the columns of the product.
    public var outputs: Int { self.layout.outputs }

    /// Columns of the weight tensor: the length of every sum.
    public var inputs: Int { self.layout.inputs }

    /// How the elements are kept.
    public var dtype: DType { self.layout.dtype }

    /// Bytes that the packed weights take, scales included.
    public var byteCount: Int { self.layout.byteCount }

    var panelCount: Int { self.layout.panelCount }

    var scales: UnsafePointer<Float> {
        (self.storage + self.layout.scalesOffset).assumingMemoryBound(to: Float.self)
    }

    var compensation: UnsafePointer<Int32> {
        (self.storage + self.layout.compensationOffset).assumingMemoryBound(to: Int32.self)
    }

    /// Packs a row-major weight tensor.
    ///
    /// - Parameters:
    ///   - source: `outputs * inputs` elements of `sourceType`; need not be aligned.
    ///   - sourceType: Element type of the source.
    ///   - outputs: Rows of the tensor, at least 1.
    ///   - inputs: Columns of the tensor, at least 1 and at most `dtype.mostInputs`.
    ///   - dtype: How to keep the elements. float32 and float16 sources are rounded to nearest even for `bfloat16`. For
    ///     `int8`, a row with an infinity or NaN in it turns every result into NaN, and one whose largest magnitude is
    ///     below 1.5e-36 counts as zeros.
    ///   - pool: Threads that share the work; none when omitted.
    public init(
        packing source: UnsafeRawBufferPointer,
        as sourceType: DType,
        outputs: Int,
        inputs: Int,
        dtype: DType,
        pool: WorkPool? = nil
    ) {
        guard let layout = PackedLayout(outputs: outputs, inputs: inputs, dtype: dtype) else {
            preconditionFailure(
                "cannot pack a tensor of \(outputs) x \(inputs) elements as \(dtype); it takes at most"
                    + " \(dtype.mostInputs) inputs"
            )
        }
        precondition(
            source.count == outputs * inputs * sourceType.byteCount,
            "\(source.count) bytes are not \(outputs) x \(inputs) elements of \(sourceType)"
        )
        self.layout = layout
        let storage = UnsafeMutableRawPointer.allocate(
            byteCount: layout.byteCount,
            alignment: PackedLayout.alignment
        )
        self.storage = UnsafeRawPointer(storage)
        self.owner = nil
        let scales = (storage + layout.scalesOffset).assumingMemoryBound(to: Float.self)
        let compensation = (storage + layout.compensationOffset).assumingMemoryBound(to: Int32.self)
        let pack = { (range: Range<Int>) in
            if dtype == .int8 {
                ck_pack_int8(
                    source.baseAddress,
                    sourceType.kernelCode,
                    inputs,
                    outputs,
                    storage,
                    scales,
                    compensation,
                    range.lowerBound,
                    range.upperBound
                )
                return
            }
            ck_pack(
                source.baseAddress,
                sourceType.kernelCode,
                inputs,
                outputs,
                storage,
                dtype.kernelCode,
                range.lowerBound,
                range.upperBound
            )
        }
        if let pool {
            pool.run(layout.panelCount, body: pack)
        } else {
            pack(0..<layout.panelCount)
        }
    }

    /// Uses packed weights in place, such as in a mapped file; nil where the number of bytes does not match the layout,
    /// or they are not aligned.
    ///
    /// - Parameters:
    ///   - bytes: What `withUnsafeBytes(_:)` of a matrix with this layout gave, at an address that is a multiple of
    ///     `PackedLayout.alignment`. It must not be written any more.
    ///   - layout: Where the parts lie.
    ///   - owner: Keeps the bytes in place for as long as it lives.
    public init?(adopting bytes: UnsafeRawBufferPointer, layout: PackedLayout, owner: AnyObject) {
        guard let base = bytes.baseAddress, bytes.count == layout.byteCount,
            UInt(bitPattern: base) % UInt(PackedLayout.alignment) == 0
        else {
            return nil
        }
        self.layout = layout
        self.storage = base
        self.owner = owner
    }

    deinit {
        if self.owner == nil {
            self.storage.deallocate()
        }
    }

    /// Lends the packed weights' bytes, in the order that `PackedLayout` describes.
    ///
    /// - Parameter body: Reads the bytes, which are valid until it returns.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try body(UnsafeRawBufferPointer(start: self.storage, count: self.layout.byteCount))
    }

    /// Computes one product on the calling thread alone, with its own memory for quantised inputs.
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
        product.compute(level: level)
    }
}
