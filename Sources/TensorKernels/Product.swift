// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import SwitchyardTypes
internal import Synchronization

/// One product `output[rows, outputs] = input[rows, inputs] W^T`, ready to be computed.
///
/// With float32 and bfloat16 weights, every element of the output is one chain of fused multiply-adds over the inputs
/// in ascending order, in float32. With int8 weights each input row is quantised separately, the sum of integers is
/// exact, and `output = sum * (rowScale * weightScale)`. So a row of the output depends on its row of the input and on
/// the weights, and on nothing else: not on the number of rows, not on the instruction set, not on the number of
/// threads.
///
/// An infinity or NaN in an input row shows in all outputs of the row with int8 weights.
public struct Product {
    /// The weights.
    public var matrix: PackedMatrix

    /// The first row of the input.
    public var input: UnsafePointer<Float>

    /// Elements between the starts of two rows of the input.
    public var inputStride: Int

    /// Number of rows.
    public var rows: Int

    /// The first row of the output, which must not overlap the input.
    public var output: UnsafeMutablePointer<Float>

    /// Elements between the starts of two rows of the output.
    public var outputStride: Int

    /// Whether negative results become 0.
    public var relu: Bool

    /// Describes a product.
    ///
    /// - Parameters:
    ///   - matrix: The weights.
    ///   - input: The first row of the input, `matrix.inputs` wide.
    ///   - inputStride: Elements between input rows; the width when omitted.
    ///   - rows: Number of rows.
    ///   - output: The first row of the output, `matrix.outputs` wide.
    ///   - outputStride: Elements between output rows; the width when omitted.
    ///   - relu: Whether negative results become 0.
    public init(
        _ matrix: PackedMatrix,
        input: UnsafePointer<Float>,
        inputStride: Int? = nil,
        rows: Int,
        output: UnsafeMutablePointer<Float>,
        outputStride: Int? = nil,
        relu: Bool = false
    ) {
        self.matrix = matrix
        self.input = input
        self.inputStride = inputStride ?? matrix.inputs
        self.rows = rows
        self.output = output
        self.outputStride = outputStride ?? matrix.outputs
        self.relu = relu
    }

    /// Describes a product of whole matrices.
    ///
    /// - Parameters:
    ///   - matrix: The weights.
    ///   - input: `[rows, matrix.inputs]`.
    ///   - output: `[rows, matrix.outputs]`.
    ///   - relu: Whether negative results become 0.
    public init(_ matrix: PackedMatrix, _ input: FloatMatrix, into output: FloatMatrix, relu: Bool = false) {
        precondition(
            input.columns == matrix.inputs && output.columns == matrix.outputs && input.rows == output.rows,
            "a product of \(input.rows) x \(input.columns) with \(matrix.outputs) x \(matrix.inputs) weights"
                + " does not give \(output.rows) x \(output.columns)"
        )
        self.init(matrix, input: input.pointer, rows: input.rows, output: output.pointer, relu: relu)
    }

    /// Rough cost of one panel: the multiply-adds, and the reading of the weights as if it were four rows of them.
    ///
    /// int8 costs a quarter of both.
    var panelCost: Int {
        let cost = self.matrix.inputs * (self.rows + 4)
        return self.matrix.dtype == .int8 ? (cost + 3) / 4 : cost
    }

    /// Rows for each thread from which a product is shared by rows, not by panels.
    ///
    /// A thread then lays out its own rows alone. They fill groups of their own, so all threads together read the weights no more
    /// often.
    fileprivate static let leastSharedRows = 128

    /// Computes the columns of some panels on the calling thread.
    ///
    /// - Parameters:
    ///   - panels: Which panels.
    ///   - rows: Which rows; all where omitted. int8 products compute all.
    ///   - level: The instruction set.
    ///   - scratch: `Product.scratchFloats` floats that nothing else uses meanwhile.
    ///   - quantized: The quantised input, which int8 weights need.
    func compute(
        panels: Range<Int>,
        rows: Range<Int>? = nil,
        level: KernelLevel,
        scratch: UnsafeMutablePointer<Float>,
        quantized: UnsafeRawPointer? = nil
    ) {
        if self.matrix.dtype == .int8 {
            guard let quantized else {
                preconditionFailure("an int8 product was handed no quantised input")
            }
            self.computeInt8(panels: panels, from: quantized, level: level)
            return
        }
        let rows = rows ?? 0..<self.rows
        ck_product(
            level.rawValue,
            self.matrix.storage,
            self.matrix.dtype.kernelCode,
            self.matrix.inputs,
            self.matrix.outputs,
            panels.lowerBound,
            panels.upperBound,
            self.input + rows.lowerBound * self.inputStride,
            self.inputStride,
            rows.count,
            self.output + rows.lowerBound * self.outputStride,
            self.outputStride,
            self.relu ? 1 : 0,
            scratch
        )
    }

    /// Floats of scratch memory that a thread needs to compute a product.
    static let scratchFloats = Int(CK_SCRATCH_FLOATS)
}

/// A list of products in memory that is used again (``WorkPool/takeProducts()``).
public final class ProductList: @unchecked Sendable {
    // Safety: used by one caller at a time, the one that took it from its pool.

    /// The products.
    public var products: [Product] = []
}

/// Lists of products that are not in use.
final class ProductShelf: Sendable {
    /// Products of the longest list that is kept.
    private static let mostProducts = 1024

    private let idle = Mutex<[ProductList]>([])

    func take() -> ProductList {
        self.idle.withLock { $0.popLast() } ?? ProductList()
    }

    func giveBack(_ list: ProductList) {
        guard list.products.capacity <= Self.mostProducts else { return }
        // A list that waits must not keep weights.
        list.products.removeAll(keepingCapacity: true)
        self.idle.withLock { $0.append(list) }
    }
}

extension WorkPool {
    /// Hands out an empty list of products.
    public func takeProducts() -> ProductList { self.productLists.take() }

    /// Takes a list back.
    ///
    /// - Parameter list: What ``takeProducts()`` handed out; it must no longer be in use.
    public func giveBack(_ list: ProductList) { self.productLists.giveBack(list) }
}

extension WorkPool {
    /// Panel costs below which waking other threads takes longer than the product.
    private static let leastSharedCost = 1 << 13

    /// Computes independent products, sharing the panels of all of them among the threads.
    ///
    /// - Parameters:
    ///   - products: The products. No output may overlap another output or any input.
    ///   - level: The instruction set.
    ///   - pauses: Where to pause; nowhere if omitted.
    public func run(_ products: [Product], level: KernelLevel = .best, pauses: WorkPauses? = nil) {
        products.withUnsafeBufferPointer { self.run($0, level: level, pauses: pauses) }
    }

    /// Computes one product, sharing its panels among the threads.
    ///
    /// - Parameters:
    ///   - product: The product. Its output must not overlap its input.
    ///   - level: The instruction set.
    public func run(_ product: Product, level: KernelLevel = .best) {
        withUnsafePointer(to: product) { self.run(UnsafeBufferPointer(start: $0, count: 1), level: level) }
    }

    /// Computes two or three independent products, sharing the panels of all of them among the threads.
    ///
    /// - Parameters:
    ///   - first: A product. No output may overlap another output or any input.
    ///   - second: Another one.
    ///   - third: A third one, if any.
    public func run(_ first: Product, _ second: Product, _ third: Product? = nil) {
        withUnsafeTemporaryAllocation(of: Product.self, capacity: 3) { products in
            products.initializeElement(at: 0, to: first)
            products.initializeElement(at: 1, to: second)
            if let third {
                products.initializeElement(at: 2, to: third)
            }
            let used = products.extracting(0..<(third == nil ? 2 : 3))
            self.run(UnsafeBufferPointer(used), level: .best)
            used.deinitialize()
        }
    }

    private func run(_ products: UnsafeBufferPointer<Product>, level: KernelLevel, pauses: WorkPauses? = nil) {
        var total = 0
        for product in products where product.rows > 0 {
            total += product.panelCost * product.matrix.panelCount
        }
        let memory = self.quantizeInputs(of: products, level: level)
        defer {
            if let memory {
                self.scratch.giveBack(memory)
            }
        }
        let base = memory?.start
        let parts = total < WorkPool.leastSharedCost ? 1 : self.threadCount
        if let pauses {
            let panel = products.reduce(0) { max($0, $1.panelCost) }
            let step = max(
                pauses.items(of: PackedLayout.panelColumns, threads: parts),
                WorkPauses.leastPanels * panel
            )
            for start in stride(from: 0, to: total, by: step) {
                let costs = start..<min(start + step, total)
                self.run(products, costs: costs, parts: parts, byRows: false, level: level, quantized: base)
                pauses.pause()
            }
            return
        }
        guard parts > 1 else {
            self.withPartMemory { scratch in
                var inputs = QuantizedInputs()
                for product in products where product.rows > 0 {
                    product.compute(
                        panels: 0..<product.matrix.panelCount,
                        level: level,
                        scratch: scratch,
                        quantized: inputs.place(of: product, in: base)
                    )
                }
            }
            return
        }
        self.run(products, costs: 0..<total, parts: parts, byRows: true, level: level, quantized: base)
    }

    /// Computes the panels that start in a range of the products' cost, or the rows where those are many.
    private func run(
        _ products: UnsafeBufferPointer<Product>,
        costs: Range<Int>,
        parts: Int,
        byRows: Bool,
        level: KernelLevel,
        quantized base: UnsafeRawPointer?
    ) {
        let leastRows = byRows ? Product.leastSharedRows * parts : Int.max
        let work = ProductShare(
            products: products,
            costs: costs,
            parts: parts,
            leastRows: leastRows,
            level: level,
            base: base,
            pool: self
        )
        withUnsafePointer(to: work) { work in
            self.run(parts, context: work) { context, range in
                let work = context.assumingMemoryBound(to: ProductShare.self).pointee
                for part in range { work.compute(part, work.pool.scratch(ofPart: part)) }
            }
        }
    }
}

/// Panels or rows of some products, divided into parts of about the same cost.
private struct ProductShare {
    let products: UnsafeBufferPointer<Product>
    /// The panels or rows are those that start in this range of the products' cost.
    let costs: Range<Int>
    let parts: Int
    /// Rows from which a product is divided by rows.
    let leastRows: Int
    let level: KernelLevel
    /// The quantised inputs, where there are any.
    let base: UnsafeRawPointer?
    let pool: WorkPool

    func compute(_ part: Int, _ scratch: UnsafeMutablePointer<Float>) {
        let low = self.costs.lowerBound + self.costs.count * part / self.parts
        let high = self.costs.lowerBound + self.costs.count * (part + 1) / self.parts
        var start = 0
        var inputs = QuantizedInputs()
        for product in self.products where product.rows > 0 {
            let quantized = inputs.place(of: product, in: self.base)
            let panels = product.matrix.panelCount
            let whole = product.panelCost * panels
            let isByRows = product.rows >= self.leastRows && product.matrix.dtype != .int8
            let count = isByRows ? product.rows : panels
            let cost = max(whole / count, 1)
            // A panel or row belongs to the part whose share of the cost it starts in.
            let first = min(max((low - start + cost - 1) / cost, 0), count)
            let last = min(max((high - start + cost - 1) / cost, 0), count)
            if first < last {
                product.compute(
                    panels: isByRows ? 0..<panels : first..<last,
                    rows: isByRows ? first..<last : nil,
                    level: self.level,
                    scratch: scratch,
                    quantized: quantized
                )
            }
            start += whole
        }
    }
}
