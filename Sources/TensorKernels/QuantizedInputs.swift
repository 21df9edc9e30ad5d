// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import SwitchyardTypes

/// The places of the int8 copies of products' inputs in scratch memory.
///
/// Places follow from the products and their order alone. So every thread that computes a part of them finds the places
/// by itself, and nothing has to be stored. A product with the same input as the one before it shares its copy.
struct QuantizedInputs {
    /// Bytes of all places so far.
    private(set) var byteCount = 0

    private var input: UnsafePointer<Float>?
    private var inputStride = 0
    private var rows = 0
    private var inputs = 0
    private var offset = 0

    /// The place of a product's copy.
    ///
    /// - Parameter product: The next of the products.
    /// - Returns: The place's offset in the scratch memory, and whether it is the first product with it; nil for a
    ///   product that reads float32.
    mutating func place(of product: Product) -> (offset: Int, isNew: Bool)? {
        guard product.matrix.dtype == .int8, product.rows > 0 else {
            return nil
        }
        if self.input == product.input, self.inputStride == product.inputStride, self.rows == product.rows,
            self.inputs == product.matrix.inputs
        {
            return (self.offset, false)
        }
        self.input = product.input
        self.inputStride = product.inputStride
        self.rows = product.rows
        self.inputs = product.matrix.inputs
        self.offset = self.byteCount
        self.byteCount += product.quantizedScaleBytes + product.rows * product.quantizedStride
        return (self.offset, true)
    }

    /// The place of a product's copy in memory.
    ///
    /// - Parameters:
    ///   - product: The next of the products.
    ///   - base: The scratch memory, if there is any.
    /// - Returns: The quantised input; nil for a product that reads float32.
    mutating func place(of product: Product, in base: UnsafeRawPointer?) -> UnsafeRawPointer? {
        guard let place = self.place(of: product) else {
            return nil
        }
        return base.map { $0 + place.offset }
    }
}

extension Product {
    /// Bytes between the starts of two quantised rows: an odd number of cache lines, so that the rows that a product
    /// reads at once do not fall into the same set of the first-level cache.
    fileprivate var quantizedStride: Int {
        ((self.matrix.inputs + 63) / 64 | 1) * 64
    }

    /// Bytes of the rows' scales, which lie before the rows.
    fileprivate var quantizedScaleBytes: Int {
        (self.rows * MemoryLayout<Float>.stride + 63) / 64 * 64
    }

    /// Quantises some rows of the input.
    ///
    /// - Parameters:
    ///   - rows: Which rows.
    ///   - place: The place of this product's copy.
    ///   - level: The instruction set that the product will use.
    func quantize(rows: Range<Int>, into place: UnsafeMutableRawPointer, level: KernelLevel) {
        ck_quantize_rows(
            level.rawValue,
            self.input + rows.lowerBound * self.inputStride,
            self.inputStride,
            self.matrix.inputs,
            rows.count,
            place + self.quantizedScaleBytes + rows.lowerBound * self.quantizedStride,
            self.quantizedStride,
            place.assumingMemoryBound(to: Float.self) + rows.lowerBound
        )
    }

    /// Computes the columns of some panels of an int8 product on the calling thread.
    ///
    /// - Parameters:
    ///   - panels: Which panels.
    ///   - place: The quantised input.
    ///   - level: The instruction set, the same as for the input.
    func computeInt8(panels: Range<Int>, from place: UnsafeRawPointer, level: KernelLevel) {
        ck_product_int8(
            level.rawValue,
            self.matrix.storage,
            self.matrix.scales,
            self.matrix.compensation,
            self.matrix.inputs,
            self.matrix.outputs,
            panels.lowerBound,
            panels.upperBound,
            place + self.quantizedScaleBytes,
            self.quantizedStride,
            place.assumingMemoryBound(to: Float.self),
            self.rows,
            self.output,
            self.outputStride,
            self.relu ? 1 : 0
        )
    }

    /// Computes the whole product on the calling thread, with memory of its own for a quantised input.
    func compute(level: KernelLevel) {
        var inputs = QuantizedInputs()
        guard let place = inputs.place(of: self) else {
            withUnsafeTemporaryAllocation(of: Float.self, capacity: Product.scratchFloats) { scratch in
                guard let scratch = scratch.baseAddress else {
                    return
                }
                self.compute(panels: 0..<self.matrix.panelCount, level: level, scratch: scratch)
            }
            return
        }
        let memory = ScratchMemory()
        let base = memory.reserve(inputs.byteCount) + place.offset
        self.quantize(rows: 0..<self.rows, into: base, level: level)
        self.computeInt8(panels: 0..<self.matrix.panelCount, from: UnsafeRawPointer(base), level: level)
    }
}

extension WorkPool {
    /// Elements below which waking other threads takes longer than quantising.
    private static let leastSharedElements = 1 << 15

    /// Quantises the inputs of int8 products, each once.
    ///
    /// - Parameters:
    ///   - products: The products.
    ///   - level: The instruction set that they will use.
    /// - Returns: Memory with the quantised inputs, to be returned to `scratch`; nil where no product needs any.
    func quantizeInputs(of products: UnsafeBufferPointer<Product>, level: KernelLevel) -> ScratchMemory? {
        var inputs = QuantizedInputs()
        var rows = 0
        var elements = 0
        for product in products {
            if let place = inputs.place(of: product), place.isNew {
                rows += product.rows
                elements += product.rows * product.matrix.inputs
            }
        }
        guard rows > 0 else {
            return nil
        }
        let memory = self.scratch.take()
        let base = memory.reserve(inputs.byteCount)
        if elements < WorkPool.leastSharedElements {
            WorkPool.quantize(rows: 0..<rows, of: products, into: base, level: level)
        } else {
            self.run(rows) { WorkPool.quantize(rows: $0, of: products, into: base, level: level) }
        }
        return memory
    }

    /// Quantises some rows of the inputs, counted through all of them.
    private static func quantize(
        rows: Range<Int>,
        of products: UnsafeBufferPointer<Product>,
        into base: UnsafeMutableRawPointer,
        level: KernelLevel
    ) {
        var inputs = QuantizedInputs()
        var start = 0
        for product in products {
            guard let place = inputs.place(of: product), place.isNew else {
                continue
            }
            let low = max(rows.lowerBound - start, 0)
            let high = min(rows.upperBound - start, product.rows)
            if low < high {
                product.quantize(rows: low..<high, into: base + place.offset, level: level)
            }
            start += product.rows
        }
    }
}
