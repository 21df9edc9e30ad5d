// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// Whether values are finite.
public enum FiniteCheck {
    /// Whether all values in the bytes are finite: neither infinite nor "not a number".
    ///
    /// Adding one to the exponent's lowest bit carries into the sign bit exactly where all exponent bits are set, so no
    /// value needs a branch.
    ///
    /// - Parameter bytes: Little-endian float32 values at any alignment; up to three remaining bytes are ignored.
    /// - Returns: Whether all are finite; true for no values.
    public static func allFinite(_ bytes: UnsafeRawBufferPointer) -> Bool {
        typealias Vector = SIMD16<UInt32>
        let exponent: UInt32 = 0x7F80_0000
        let one: UInt32 = 0x0080_0000
        let vectorBytes = MemoryLayout<Vector>.size
        var carried = Vector.zero
        var offset = 0
        while offset + vectorBytes <= bytes.count {
            let bits = bytes.loadUnaligned(fromByteOffset: offset, as: Vector.self)
            carried |= (bits & exponent) &+ one
            offset += vectorBytes
        }
        var rest: UInt32 = 0
        while offset + 4 <= bytes.count {
            rest |= (bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self) & exponent) &+ one
            offset += 4
        }
        for lane in 0..<Vector.scalarCount {
            rest |= carried[lane]
        }
        return rest & 0x8000_0000 == 0
    }

    /// Whether all values of a type of rows are finite.
    ///
    /// - Parameters:
    ///   - bytes: Little-endian values at any alignment; an incomplete last value is ignored.
    ///   - type: The values' type, float32 or bfloat16 (`DType.isRow`).
    /// - Returns: Whether all are finite; true for no values.
    public static func allFinite(_ bytes: UnsafeRawBufferPointer, of type: DType) -> Bool {
        type == .float32 ? self.allFinite(bytes) : self.allFiniteBFloat16(bytes)
    }

    /// Which rows hold a value that is not finite.
    ///
    /// - Parameters:
    ///   - bytes: Rows of little-endian values at any alignment; an incomplete last row is ignored.
    ///   - rowBytes: The bytes of a row, more than zero.
    ///   - type: The values' type, float32 or bfloat16 (`DType.isRow`).
    /// - Returns: The rows' indices, ascending; empty if all values are finite, which costs one pass.
    public static func rowsNotFinite(_ bytes: UnsafeRawBufferPointer, rowBytes: Int, of type: DType) -> [Int] {
        guard rowBytes > 0, !self.allFinite(bytes, of: type) else { return [] }
        return (0..<bytes.count / rowBytes)
            .filter { row in
                let start = row * rowBytes
                return !self.allFinite(UnsafeRawBufferPointer(rebasing: bytes[start..<start + rowBytes]), of: type)
            }
    }

    /// As ``allFinite(_:)``, with the same exponent in half as many bits.
    private static func allFiniteBFloat16(_ bytes: UnsafeRawBufferPointer) -> Bool {
        typealias Vector = SIMD32<UInt16>
        let exponent: UInt16 = 0x7F80
        let one: UInt16 = 0x0080
        let vectorBytes = MemoryLayout<Vector>.size
        var carried = Vector.zero
        var offset = 0
        while offset + vectorBytes <= bytes.count {
            let bits = bytes.loadUnaligned(fromByteOffset: offset, as: Vector.self)
            carried |= (bits & exponent) &+ one
            offset += vectorBytes
        }
        var rest: UInt16 = 0
        while offset + 2 <= bytes.count {
            rest |= (bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self) & exponent) &+ one
            offset += 2
        }
        for lane in 0..<Vector.scalarCount {
            rest |= carried[lane]
        }
        return rest & 0x8000 == 0
    }
}
