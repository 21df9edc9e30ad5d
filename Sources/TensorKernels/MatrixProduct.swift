// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// One operand of a ``MatrixProduct``: a row-major float32 matrix in the caller's memory, or the transpose of one.
public struct MatrixOperand {
    /// The first element.
    public var pointer: UnsafePointer<Float>

    /// Elements between the starts of two rows in memory.
    public var stride: Int

    /// Whether the operand is the transpose of what lies in memory.
    public var isTransposed: Bool

    /// Describes an operand.
    ///
    /// - Parameters:
    ///   - pointer: The first element.
    ///   - stride: Elements between the starts of two rows in memory.
    ///   - isTransposed: Whether the operand is the transpose of what lies in memory.
    public init(_ pointer: UnsafePointer<Float>, stride: Int, isTransposed: Bool = false) {
        self.pointer = pointer
        self.stride = stride
        self.isTransposed = isTransposed
    }
}

/// A product `output[rows, columns] = left[rows, depth] right[depth, columns]`, or `output + left right`, of matrices
/// that change between two products, as in training.
///
/// Every element of the output is one chain of fused multiply-adds over the depth in ascending order, in float32,
/// starting from 0 or from the element itself. So the result depends on neither the instruction set nor the threads, and
/// a product cut along its depth gives the same bits as the whole one, if the parts are added in order.
///
/// With `x [tokens, inputs]`, weights `W [outputs, inputs]` and `dy [tokens, outputs]`, a linear layer's three products
/// are `y = x W^T`, `dx = dy W` and `dW += dy^T x`: one has the right operand transposed, one neither, one the left.
public struct MatrixProduct {
    /// `[rows, depth]`.
    public var left: MatrixOperand

    /// `[depth, columns]`.
    public var right: MatrixOperand

    /// Rows of the output.
    public var rows: Int

    /// The length of every sum.
    public var depth: Int

    /// Columns of the output.
    public var columns: Int

    /// The first element of the output, which overlaps no operand.
    public var output: UnsafeMutablePointer<Float>

    /// Elements between the starts of two rows of the output.
    public var outputStride: Int

    /// Whether the sums start from what the output holds.
    public var accumulates: Bool

    /// Whether negative results become 0.
    public var relu: Bool

    /// Describes a product.
    ///
    /// - Parameters:
    ///   - left: `[rows, depth]`.
    ///   - right: `[depth, columns]`.
    ///   - rows: Rows of the output.
    ///   - depth: The length of every sum.
    ///   - columns: Columns of the output.
    ///   - output: The first element of the output.
    ///   - outputStride: Elements between output rows; `columns` when omitted.
    ///   - accumulates: Whether the sums start from what the output holds.
    ///   - relu: Whether negative results become 0.
    public init(
        _ left: MatrixOperand,
        _ right: MatrixOperand,
        rows: Int,
        depth: Int,
        columns: Int,
        into output: UnsafeMutablePointer<Float>,
        outputStride: Int? = nil,
        accumulates: Bool = false,
        relu: Bool = false
    ) {
        self.left = left
        self.right = right
        self.rows = rows
        self.depth = depth
        self.columns = columns
        self.output = output
        self.outputStride = outputStride ?? columns
        self.accumulates = accumulates
        self.relu = relu
    }

    fileprivate var panelCount: Int { (self.columns + Int(CK_PANEL_COLUMNS) - 1) / Int(CK_PANEL_COLUMNS) }
    fileprivate var panelFloats: Int { self.depth * Int(CK_PANEL_COLUMNS) }

    /// Whether each thread packs the right operand for itself, a piece of the depth at a time: a long sum into an output
    /// that stays in the second-level cache meanwhile.
    fileprivate var isStreamed: Bool {
        self.left.isTransposed && !self.right.isTransposed && !self.relu && self.depth >= 256
            && self.rows * self.columns <= 1 << 17 && self.columns <= Int(CK_STREAM_FLOATS) / 64
    }
}

/// Panels of one product that are packed together with others'.
private struct PackedRun {
    var product: Int
    var panels: Range<Int>
    /// Where the product's first panel would lie, in floats from the start of the memory.
    var base: Int
}

extension WorkPool {
    /// Floats of packed panels at a time: more is cut into rounds.
    private static let mostPackedFloats = 6 << 20

    /// Rows for each thread from which a product is shared by rows rather than by panels.
    private static let leastSharedRows = 8

    /// Computes independent products, sharing each among the threads.
    ///
    /// - Parameters:
    ///   - products: The products. No output may overlap another output or any operand.
    ///   - level: The instruction set; the bits are the same for all.
    public func multiply(_ products: [MatrixProduct], level: KernelLevel = .best) {
        let memory = self.scratch.take()
        defer { self.scratch.giveBack(memory) }
        var runs: [PackedRun] = []
        var streamed: [Int] = []
        runs.reserveCapacity(products.count)
        var used = 0
        func finish() {
            if !runs.isEmpty || !streamed.isEmpty {
                let start = memory.reserve(used * MemoryLayout<Float>.stride)
                self.multiply(products, runs, streamed, start.assumingMemoryBound(to: Float.self), level)
            }
            streamed.removeAll(keepingCapacity: true)
            runs.removeAll(keepingCapacity: true)
            used = 0
        }
        for (index, product) in products.enumerated() where product.rows > 0 && product.columns > 0 {
            guard product.depth > 0 else {
                product.finishEmptySums()
                continue
            }
            if product.isStreamed {
                streamed.append(index)
                continue
            }
            var panel = 0
            while panel < product.panelCount {
                let room = (WorkPool.mostPackedFloats - used) / product.panelFloats
                let count = min(max(room, used == 0 ? 1 : 0), product.panelCount - panel)
                guard count > 0 else {
                    finish()
                    continue
                }
                let base = used - panel * product.panelFloats
                runs.append(PackedRun(product: index, panels: panel..<(panel + count), base: base))
                used += count * product.panelFloats
                panel += count
            }
        }
        finish()
    }

    /// Packs some panels, all threads together, and computes with them.
    private func multiply(
        _ products: [MatrixProduct],
        _ runs: [PackedRun],
        _ streamed: [Int],
        _ memory: UnsafeMutablePointer<Float>,
        _ level: KernelLevel
    ) {
        let total = runs.reduce(0) { $0 + $1.panels.count }
        let work = runs.reduce(0) {
            $0 + $1.panels.count * products[$1.product].depth * (products[$1.product].rows + 8)
        }
        let parts = work < 1 << 12 && streamed.isEmpty ? 1 : self.threadCount
        func pack(_ range: Range<Int>) {
            var start = 0
            for run in runs {
                let low = max(range.lowerBound - start, 0)
                let high = min(range.upperBound - start, run.panels.count)
                if low < high {
                    let first = run.panels.lowerBound
                    products[run.product].pack(first + low..<first + high, into: memory + run.base)
                }
                start += run.panels.count
            }
        }
        func compute(part: Int, of parts: Int, _ scratch: UnsafeMutablePointer<Float>) {
            for run in runs {
                let product = products[run.product]
                let byRows = product.rows >= WorkPool.leastSharedRows * parts
                let count = byRows ? product.rows : run.panels.count
                let share = count * part / parts..<count * (part + 1) / parts
                let first = run.panels.lowerBound
                product.compute(
                    rows: byRows ? share : 0..<product.rows,
                    panels: byRows ? run.panels : first + share.lowerBound..<first + share.upperBound,
                    packed: memory + run.base,
                    scratch: scratch,
                    level: level
                )
            }
            for index in streamed { products[index].stream(part: part, of: parts, scratch, level) }
        }
        guard parts > 1 else {
            pack(0..<total)
            self.withPartMemory { compute(part: 0, of: 1, $0) }
            return
        }
        if total > 0 { self.run(total) { pack($0) } }
        self.run(parts) { (range: Range<Int>, scratch: UnsafeMutablePointer<Float>) in
            compute(part: range.lowerBound, of: parts, scratch)
        }
    }
}

extension MatrixProduct {
    fileprivate func pack(_ panels: Range<Int>, into memory: UnsafeMutablePointer<Float>) {
        ck_pack_panels(
            self.right.pointer,
            self.right.stride,
            self.right.isTransposed ? 1 : 0,
            self.depth,
            self.columns,
            memory,
            panels.lowerBound,
            panels.upperBound
        )
    }

    fileprivate func compute(
        rows: Range<Int>,
        panels: Range<Int>,
        packed: UnsafePointer<Float>,
        scratch: UnsafeMutablePointer<Float>,
        level: KernelLevel
    ) {
        guard !rows.isEmpty, !panels.isEmpty else { return }
        ck_multiply(
            level.rawValue,
            packed,
            self.depth,
            self.columns,
            panels.lowerBound,
            panels.upperBound,
            self.left.pointer + rows.lowerBound * (self.left.isTransposed ? 1 : self.left.stride),
            self.left.stride,
            self.left.isTransposed ? 1 : 0,
            rows.count,
            self.output + rows.lowerBound * self.outputStride,
            self.outputStride,
            self.accumulates ? 1 : 0,
            self.relu ? 1 : 0,
            scratch
        )
    }

    /// One part of the output, by rows or by panels, whichever leaves less to be read by all parts.
    fileprivate func stream(part: Int, of parts: Int, _ scratch: UnsafeMutablePointer<Float>, _ level: KernelLevel) {
        let byRows = self.rows >= self.columns
        let units = byRows ? self.rows : self.panelCount
        let width = byRows ? 1 : Int(CK_PANEL_COLUMNS)
        let low = units * part / parts * width
        let high = min(units * (part + 1) / parts * width, byRows ? self.rows : self.columns)
        guard low < high else { return }
        ck_multiply_streaming(
            level.rawValue,
            self.left.pointer + (byRows ? low : 0),
            self.left.stride,
            self.right.pointer + (byRows ? 0 : low),
            self.right.stride,
            byRows ? high - low : self.rows,
            self.depth,
            byRows ? self.columns : high - low,
            self.output + (byRows ? low * self.outputStride : low),
            self.outputStride,
            self.accumulates ? 1 : 0,
            scratch
        )
    }

    /// The output where there is nothing to add up.
    fileprivate func finishEmptySums() {
        for row in 0..<self.rows {
            for column in row * self.outputStride..<row * self.outputStride + self.columns {
                let start = self.accumulates ? self.output[column] : 0
                self.output[column] = self.relu && start < 0 ? 0 : start
            }
        }
    }
}
