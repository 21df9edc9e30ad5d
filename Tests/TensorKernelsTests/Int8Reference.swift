// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import TensorKernels

/// What int8 products are defined as, in plain loops.
enum Int8Reference {
    /// A row of int8 numbers and what each of them is to be multiplied by.
    struct Row: Equatable {
        var values: [Int8]
        var scale: Float
    }

    /// Quantises a row of finite numbers.
    static func quantize(_ row: ArraySlice<Float>) -> Row {
        let largest = row.map(\.magnitude).max() ?? 0
        guard largest >= 127 * Float.leastNormalMagnitude else {
            return Row(values: [Int8](repeating: 0, count: row.count), scale: 0)
        }
        let inverse = 127 / largest
        return Row(
            values: row.map { Int8(($0 * inverse).rounded(.toNearestOrEven)) },
            scale: largest / 127
        )
    }

    static func quantize(_ matrix: [Float], columns: Int) -> [Row] {
        stride(from: 0, to: matrix.count, by: columns).map { self.quantize(matrix[$0..<$0 + columns]) }
    }

    /// One element of the product: an exact sum, then two float32 products.
    static func element(_ x: Row, _ weights: Row, relu: Bool = false) -> Float {
        var sum = 0
        for (left, right) in zip(x.values, weights.values) {
            sum += Int(left) * Int(right)
        }
        let factor = x.scale * weights.scale
        let result = Float(sum) * factor
        return relu && result < 0 ? 0 : result
    }

    /// The product `[rows, outputs]`.
    static func product(_ x: [Float], _ weights: [Float], inputs: Int, relu: Bool = false) -> [Float] {
        let columns = self.quantize(weights, columns: inputs)
        return self.quantize(x, columns: inputs)
            .flatMap { row in
                columns.map { self.element(row, $0, relu: relu) }
            }
    }
}

extension PackedMatrix {
    /// Packs float32 weights.
    convenience init(
        _ weights: [Float],
        outputs: Int,
        inputs: Int,
        dtype: DType = .int8,
        pool: WorkPool? = nil
    ) {
        let bytes = floatBytes(weights)
        self.init(bytes, as: .float32, outputs: outputs, inputs: inputs, dtype: dtype, pool: pool)
    }

    /// Packs bytes that start at an odd address.
    convenience init(
        _ bytes: [UInt8],
        as type: DType,
        outputs: Int,
        inputs: Int,
        dtype: DType = .int8,
        pool: WorkPool? = nil
    ) {
        let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count + 1, alignment: 64)
        defer { storage.deallocate() }
        let odd = UnsafeMutableRawBufferPointer(rebasing: storage.dropFirst())
        odd.copyBytes(from: bytes)
        self.init(
            packing: UnsafeRawBufferPointer(odd),
            as: type,
            outputs: outputs,
            inputs: inputs,
            dtype: dtype,
            pool: pool
        )
    }

    /// Multiplies contiguous rows, and checks that nothing but the result is written.
    func product(_ x: [Float], rows: Int, relu: Bool = false, level: KernelLevel = .best) -> [Float] {
        let filling: Float = 12345
        var y = [Float](repeating: filling, count: rows * self.outputs + 16)
        y.withUnsafeMutableBufferPointer { out in
            x.withUnsafeBufferPointer { input in
                guard let target = out.baseAddress, let source = input.baseAddress else {
                    return
                }
                self.multiply(source, rows: rows, into: target, relu: relu, level: level)
            }
        }
        precondition(y.suffix(16).allSatisfy { $0 == filling }, "written past the end")
        return Array(y.dropLast(16))
    }

    var bytes: [UInt8] {
        self.withUnsafeBytes { Array($0) }
    }
}
