// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import SwitchyardTypes

/// An int8 copy of weights that shows which of a product's many outputs can be the greatest, so that the others need
/// not be computed.
///
/// The copy's product is a quarter of the bytes. The error of each of its outputs is bounded: with weights `w`, their
/// copy `w'`, an input `h` and its copy `h'`, `|w'.h' - w.h| <= |w' - w| |h'| + |w| |h' - h|` (Cauchy-Schwarz), where
/// the norms of the weights are known from the start. The input's copy is of two int8 rows, the second for the
/// remainder of the first, so that the second term is tiny. Outputs whose upper bound is below another one's lower
/// bound are ruled out; the panels of the rest are computed with the weights themselves, in the order in which the
/// whole product would.
public final class ProductScreen: Sendable {
    /// The most input rows for which screening pays: the second rows double the work, and the remaining panels add up.
    public static let mostRows = 16

    /// The copy.
    private let copy: PackedMatrix

    /// For each output the norm of its weights, `[1, outputs]`.
    private let norms: FloatMatrix

    /// For each output the distance of its weights from their copy, `[1, outputs]`.
    private let distances: FloatMatrix

    /// Bytes that the copy and the norms take.
    public var byteCount: Int {
        self.copy.byteCount + 2 * self.copy.outputs * MemoryLayout<Float>.stride
    }

    /// Copies weights.
    ///
    /// - Parameters:
    ///   - source: The row-major tensor that the weights were packed from; need not be aligned.
    ///   - sourceType: Its element type.
    ///   - weights: The packed weights, float32 or bfloat16, at most `DType.int8.mostInputs` inputs.
    ///   - pool: Threads that share the work.
    public init(
        of source: UnsafeRawBufferPointer,
        as sourceType: DType,
        weights: PackedMatrix,
        pool: WorkPool
    ) {
        precondition(weights.dtype != .int8, "int8 weights need no int8 copy")
        self.copy = PackedMatrix(
            packing: source,
            as: sourceType,
            outputs: weights.outputs,
            inputs: weights.inputs,
            dtype: .int8,
            pool: pool
        )
        let norms = FloatMatrix(uninitializedRows: 1, columns: weights.outputs)
        let distances = FloatMatrix(uninitializedRows: 1, columns: weights.outputs)
        let rowBytes = weights.inputs * sourceType.byteCount
        pool.run(weights.outputs) { range in
            guard let base = source.baseAddress else {
                return
            }
            for output in range {
                ck_int8_distance(
                    base + output * rowBytes,
                    sourceType.kernelCode,
                    weights.dtype.kernelCode,
                    weights.inputs,
                    norms.pointer + output,
                    distances.pointer + output
                )
            }
        }
        self.norms = norms
        self.distances = distances
    }

    /// Computes the part of a product that its rows' greatest outputs need.
    ///
    /// - Parameters:
    ///   - weights: The weights that this was made for.
    ///   - input: `[rows, inputs]`.
    ///   - excluded: For each row an excluded output, if any; none where it is omitted.
    ///   - pool: Threads that share the work.
    ///   - level: The instruction set; the bits are the same for all.
    /// - Returns: `[rows, outputs]`: what the whole product holds, for all outputs that can be their row's greatest and
    ///   some others; minus infinity for the rest.
    public func product(
        _ weights: PackedMatrix,
        _ input: FloatMatrix,
        except excluded: [Int?]? = nil,
        pool: WorkPool,
        level: KernelLevel = .best
    ) -> FloatMatrix {
        precondition(excluded.map { $0.count == input.rows } ?? true, "one exclusion per row, or none")
        precondition(
            weights.outputs == self.copy.outputs && weights.inputs == self.copy.inputs
                && input.columns == weights.inputs,
            "the copy of \(self.copy.outputs) x \(self.copy.inputs) weights screens no other product"
        )
        let rows = input.rows
        let output = FloatMatrix.temporary(rows: rows, columns: weights.outputs)
        guard rows > 0 else {
            return output
        }
        let doubled = FloatMatrix.temporary(rows: 2 * rows, columns: input.columns)
        let bounds = FloatMatrix.temporary(rows: rows, columns: 2)
        for row in 0..<rows {
            let first = doubled.pointer + 2 * row * input.columns
            first.update(from: input.pointer + row * input.columns, count: input.columns)
            let bound = bounds.pointer + 2 * row
            ck_int8_rest(first, input.columns, first + input.columns, bound, bound + 1)
        }
        let sums = FloatMatrix.temporary(rows: 2 * rows, columns: weights.outputs)
        pool.run(Product(self.copy, doubled, into: sums), level: level)
        let panels = weights.panelCount
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: rows * panels) { candidates in
            guard let candidates = candidates.baseAddress else {
                return
            }
            pool.run(rows) { range in
                for row in range {
                    if let column = excluded?[row], column >= 0, column < sums.columns {
                        // No bound of it is above anything.
                        (sums.pointer + 2 * row * sums.columns)[column] = -.infinity
                    }
                    self.screen(row, sums: sums, bounds: bounds, into: candidates + row * panels, level: level)
                    output.row(row).update(repeating: -.infinity)
                }
            }
            self.compute(weights, input, candidates: candidates, into: output, pool: pool, level: level)
        }
        return output
    }

    private func screen(
        _ row: Int,
        sums: FloatMatrix,
        bounds: FloatMatrix,
        into candidates: UnsafeMutablePointer<UInt8>,
        level: KernelLevel
    ) {
        let norm = bounds.pointer[2 * row]
        let distance = bounds.pointer[2 * row + 1]
        // Both sums are rounded too: the exact one by half an ulp per input, the copy's by some.
        let rounding = norm * (Float(self.copy.inputs) * 0x1p-23 + 0x1p-19)
        let first = sums.pointer + 2 * row * sums.columns
        ck_screen(
            level.rawValue,
            first,
            first + sums.columns,
            self.norms.pointer,
            self.distances.pointer,
            distance + rounding,
            norm + distance,
            sums.columns,
            first,
            candidates
        )
    }

    /// Computes the panels that are left, each for the rows that need it.
    private func compute(
        _ weights: PackedMatrix,
        _ input: FloatMatrix,
        candidates: UnsafePointer<UInt8>,
        into output: FloatMatrix,
        pool: WorkPool,
        level: KernelLevel
    ) {
        let panels = weights.panelCount
        pool.runWithScratch(panels, floats: Product.scratchFloats) { range, scratch in
            for panel in range {
                for row in 0..<input.rows where candidates[row * panels + panel] != 0 {
                    Product(
                        weights,
                        input: input.pointer + row * input.columns,
                        rows: 1,
                        output: output.pointer + row * output.columns
                    )
                    .compute(panels: panel..<(panel + 1), level: level, scratch: scratch)
                }
            }
        }
    }
}
