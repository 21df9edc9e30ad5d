// SPDX-License-Identifier: Apache-2.0

import TensorKernels
import Testing

@Suite("Products of matrices that change")
struct MatrixProductTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var rows: Int
        var depth: Int
        var columns: Int

        var testDescription: String { "\(self.rows) x \(self.depth) x \(self.columns)" }
    }

    static let shapes = [
        Shape(rows: 1, depth: 1, columns: 1),
        Shape(rows: 1, depth: 70, columns: 33),
        Shape(rows: 3, depth: 5, columns: 31),
        Shape(rows: 13, depth: 37, columns: 64),
        Shape(rows: 40, depth: 19, columns: 100),
        Shape(rows: 25, depth: 1100, columns: 40),
        Shape(rows: 4, depth: 0, columns: 3),
    ]

    /// Numbers whose products and sums all round.
    static func numbers(_ count: Int, seed: UInt32) -> [Float] {
        var state = seed
        return (0..<count)
            .map { _ in
                state = state &* 1_664_525 &+ 1_013_904_223
                return Float(Int32(bitPattern: state)) * 0x1p-31
            }
    }

    static func transposed(_ matrix: [Float], rows: Int, columns: Int) -> [Float] {
        (0..<columns).flatMap { column in (0..<rows).map { matrix[$0 * columns + column] } }
    }

    /// The definition: one chain an element.
    static func naive(_ left: [Float], _ right: [Float], from start: [Float]?, relu: Bool, _ shape: Shape) -> [Float] {
        var output: [Float] = []
        for row in 0..<shape.rows {
            for column in 0..<shape.columns {
                var sum = start?[row * shape.columns + column] ?? 0
                for k in 0..<shape.depth {
                    sum.addProduct(left[row * shape.depth + k], right[k * shape.columns + column])
                }
                output.append(relu && sum < 0 ? 0 : sum)
            }
        }
        return output
    }

    @Test("All forms are the definition's bits at every level", arguments: Self.shapes)
    func bits(shape: Shape) {
        let left = Self.numbers(shape.rows * shape.depth, seed: 1)
        let right = Self.numbers(shape.depth * shape.columns, seed: 2)
        let start = Self.numbers(shape.rows * shape.columns, seed: 3)
        let leftColumns = Self.transposed(left, rows: shape.rows, columns: shape.depth)
        let rightColumns = Self.transposed(right, rows: shape.depth, columns: shape.columns)
        let pools = [1, 2, 3].map { WorkPool(threads: $0) }
        for form in 0..<16 {
            let (isLeftTransposed, isRightTransposed) = (form & 1 != 0, form & 2 != 0)
            let (accumulates, relu) = (form & 4 != 0, form & 8 != 0)
            let expected = Self.naive(left, right, from: accumulates ? start : nil, relu: relu, shape)
            for level in KernelLevel.available {
                for pool in pools {
                    var output = start
                    output.withUnsafeMutableBufferPointer { output in
                        (isLeftTransposed ? leftColumns : left)
                            .withUnsafeBufferPointer { a in
                                (isRightTransposed ? rightColumns : right)
                                    .withUnsafeBufferPointer { b in
                                        guard let output = output.baseAddress else { return }
                                        let spare = UnsafePointer(output)
                                        let product = MatrixProduct(
                                            MatrixOperand(
                                                a.baseAddress ?? spare,
                                                stride: isLeftTransposed ? shape.rows : shape.depth,
                                                isTransposed: isLeftTransposed
                                            ),
                                            MatrixOperand(
                                                b.baseAddress ?? spare,
                                                stride: isRightTransposed ? shape.depth : shape.columns,
                                                isTransposed: isRightTransposed
                                            ),
                                            rows: shape.rows,
                                            depth: shape.depth,
                                            columns: shape.columns,
                                            into: output,
                                            accumulates: accumulates,
                                            relu: relu
                                        )
                                        pool.multiply([product], level: level)
                                    }
                            }
                    }
                    #expect(
                        output.elementsEqual(expected) { $0.bitPattern == $1.bitPattern || ($0 == 0 && $1 == 0) },
                        "form \(form), \(level.name), \(pool.threadCount) threads"
                    )
                }
            }
        }
    }

    @Test("Parts of a sum, added in order, are the bits of the whole")
    func parts() {
        let shape = Shape(rows: 30, depth: 57, columns: 45)
        let left = Self.numbers(shape.rows * shape.depth, seed: 4)
        let right = Self.numbers(shape.depth * shape.columns, seed: 5)
        let expected = Self.naive(
            Self.transposed(left, rows: shape.depth, columns: shape.rows),
            right,
            from: nil,
            relu: false,
            shape
        )
        let pool = WorkPool(threads: 2)
        for cut in [0, 1, 20, 56, 57] {
            var output = [Float](repeating: 0, count: shape.rows * shape.columns)
            output.withUnsafeMutableBufferPointer { output in
                left.withUnsafeBufferPointer { left in
                    right.withUnsafeBufferPointer { right in
                        guard let output = output.baseAddress, let left = left.baseAddress,
                            let right = right.baseAddress
                        else { return }
                        for range in [0..<cut, cut..<shape.depth] {
                            pool.multiply([
                                MatrixProduct(
                                    MatrixOperand(left + range.lowerBound * 30, stride: 30, isTransposed: true),
                                    MatrixOperand(right + range.lowerBound * 45, stride: 45),
                                    rows: 30,
                                    depth: range.count,
                                    columns: 45,
                                    into: output,
                                    accumulates: true
                                )
                            ])
                        }
                    }
                }
            }
            #expect(output.elementsEqual(expected) { $0.bitPattern == $1.bitPattern })
        }
    }

    @Test("Products too large to be packed at once are computed in rounds")
    func rounds() {
        // 96 panels of 96 Ki floats: more than are packed at once.
        let (depth, columns) = (3 << 10, 3_001)
        let right = Self.numbers(depth * columns, seed: 6)
        let left = Self.numbers(2 * depth, seed: 7)
        let pool = WorkPool(threads: 2)
        var output = [Float](repeating: 1, count: 2 * columns)
        output.withUnsafeMutableBufferPointer { output in
            left.withUnsafeBufferPointer { left in
                right.withUnsafeBufferPointer { right in
                    guard let output = output.baseAddress, let left = left.baseAddress, let right = right.baseAddress
                    else { return }
                    let product = MatrixProduct(
                        MatrixOperand(left, stride: depth),
                        MatrixOperand(right, stride: columns),
                        rows: 2,
                        depth: depth,
                        columns: columns,
                        into: output
                    )
                    pool.multiply([product, product])
                }
            }
        }
        for column in [0, 1, 31, 1_535, 2_048, 3_000] {
            for row in 0..<2 {
                var sum: Float = 0
                for k in 0..<depth { sum.addProduct(left[row * depth + k], right[k * columns + column]) }
                #expect(output[row * columns + column] == sum)
            }
        }
    }
}
