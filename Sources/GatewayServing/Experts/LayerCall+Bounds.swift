// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import NIOCore
internal import SwitchyardTypes
internal import TensorKernels

// Which rows of a reply no expert computed.
//
// A row must be finite. If the placement says how large the outputs of its expert can be, none of its values may be larger:
// a flipped bit in an exponent, or memory that is not the experts', is then a bad row and not a wrong answer. What is
// damaged but within the bound passes; docs/reliability.md says how much that is.
extension LayerCall {
    /// The rows of a reply that cannot be right.
    ///
    /// - Parameter outputs: The reply's rows in float32; they fit this call.
    /// - Returns: Their indices in the call, ascending.
    func failedRows(of outputs: ReplyRows) -> [Int] {
        let rowBytes = self.columns * MemoryLayout<Float>.size
        var failed: [Int] = []
        outputs.withUnsafeBytes { rows in
            guard let bounds = self.bounds else {
                failed = FiniteCheck.rowsNotFinite(rows, rowBytes: rowBytes, of: .float32)
                return
            }
            self.tokens.withUnsafeReadableBytes { tokens in
                let tokenBytes = self.columns * self.rowType.byteCount
                var row = 0
                for group in self.assignment.groups {
                    for _ in group.rows {
                        let token = UnsafeRawBufferPointer(rebasing: tokens[row * tokenBytes..<(row + 1) * tokenBytes])
                        let limit = bounds.limit(of: group.expert, squaredNorm: token.squaredNorm(of: self.rowType))
                        let output = UnsafeRawBufferPointer(rebasing: rows[row * rowBytes..<(row + 1) * rowBytes])
                        // As bits, a value that is not finite is larger than every limit.
                        if output.largestMagnitudeBits > limit.bitPattern { failed.append(row) }
                        row += 1
                    }
                }
            }
        }
        return failed
    }
}

extension UnsafeRawBufferPointer {
    /// The bits without the sign of the float32 value with the largest magnitude: they order as the magnitudes do, with
    /// infinity and what is not a number above all others.
    var largestMagnitudeBits: UInt32 {
        typealias Vector = SIMD16<UInt32>
        var largest = Vector.zero
        var offset = 0
        while offset + MemoryLayout<Vector>.size <= self.count {
            let bits = self.loadUnaligned(fromByteOffset: offset, as: Vector.self) & 0x7FFF_FFFF
            largest = pointwiseMax(largest, bits)
            offset += MemoryLayout<Vector>.size
        }
        var result = largest.max()
        while offset + 4 <= self.count {
            result = Swift.max(result, self.loadUnaligned(fromByteOffset: offset, as: UInt32.self) & 0x7FFF_FFFF)
            offset += 4
        }
        return result
    }

    /// The sum of the squares of a row's values.
    ///
    /// - Parameter type: The values' type, float32 or bfloat16 (`DType.isRow`).
    /// - Returns: The sum in float32; infinite if it is too large.
    func squaredNorm(of type: DType) -> Float {
        let count = self.count / type.byteCount
        var lanes = SIMD16<Float>.zero
        var index = 0
        while index + 16 <= count {
            let values: SIMD16<Float>
            if type == .float32 {
                values = self.loadUnaligned(fromByteOffset: 4 * index, as: SIMD16<Float>.self)
            } else {
                let halves = self.loadUnaligned(fromByteOffset: 2 * index, as: SIMD16<UInt16>.self)
                values = unsafeBitCast(SIMD16<UInt32>(truncatingIfNeeded: halves) &<< 16, to: SIMD16<Float>.self)
            }
            lanes += values * values
            index += 16
        }
        var sum = lanes.sum()
        while index < count {
            let bits =
                type == .float32
                ? self.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)
                : UInt32(self.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) << 16
            sum += Float(bitPattern: bits) * Float(bitPattern: bits)
            index += 1
        }
        return sum
    }
}
