// SPDX-License-Identifier: Apache-2.0

/// Whether float32 values are finite.
public enum FiniteCheck {
    /// Whether all values in the bytes are finite: neither infinite nor "not a number".
    ///
    /// Adding one to the exponent's lowest bit carries into the sign's place exactly where all bits of the exponent are
    /// set, so no value needs a branch.
    ///
    /// - Parameter bytes: Little-endian float32 values at any alignment; a rest of fewer than four bytes is ignored.
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
}
