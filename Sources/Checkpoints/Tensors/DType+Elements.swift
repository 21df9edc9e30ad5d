// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension DType {
    /// An element of a weight's type as a float; NaN for a type that weights do not have.
    func float(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Float {
        func half() -> UInt16 { UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) }
        switch self {
        case .float32:
            return Float(
                bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self))
            )
        case .bfloat16: return Float(bitPattern: UInt32(half()) << 16)
        case .float16: return Self.widened(half())
        default: return .nan
        }
    }

    /// An element of a weight's type or of float64; NaN for other types.
    func double(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Double {
        guard self == .float64 else { return Double(self.float(bytes, index)) }
        let bits = bytes.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)
        return Double(bitPattern: UInt64(littleEndian: bits))
    }

    /// Writes a number as an element, rounded to nearest, ties to even, as torch does; nothing for types that weights do
    /// not have.
    func store(_ value: Float, _ bytes: UnsafeMutableRawBufferPointer, _ index: Int) {
        switch self {
        case .float32:
            bytes.storeBytes(of: value.bitPattern.littleEndian, toByteOffset: 4 * index, as: UInt32.self)
        case .bfloat16:
            bytes.storeBytes(of: Self.bfloat16Bits(value).littleEndian, toByteOffset: 2 * index, as: UInt16.self)
        case .float16:
            bytes.storeBytes(of: Self.float16Bits(value).littleEndian, toByteOffset: 2 * index, as: UInt16.self)
        default: break
        }
    }

    /// A number rounded to a weight's type, as a float.
    func rounded(_ value: Float) -> Float {
        switch self {
        case .bfloat16: Float(bitPattern: UInt32(Self.bfloat16Bits(value)) << 16)
        case .float16: Self.widened(Self.float16Bits(value))
        default: value
        }
    }

    static func bfloat16Bits(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        guard !value.isNaN else { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
        // The largest finite numbers carry into the infinity, as they should.
        return UInt16(truncatingIfNeeded: (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    }

    static func float16Bits(_ value: Float) -> UInt16 {
        let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
        let magnitude = value.bitPattern & 0x7FFF_FFFF
        switch magnitude {
        case 0x7F80_0001...: return sign | 0x7E00
        // 2^16 and more.
        case 0x4780_0000...: return sign | 0x7C00
        case 0x3880_0000...:
            let rounded = magnitude + 0xFFF + (magnitude >> 13 & 1)
            return sign | UInt16(truncatingIfNeeded: (rounded - 0x3800_0000) >> 13)
        default:
            // Below 2^-14 the unit is 2^-24, which is the last place of a float between 1/2 and 1.
            let shifted = (Float(bitPattern: magnitude) + 0.5).bitPattern
            return sign | UInt16(truncatingIfNeeded: shifted - 0x3F00_0000)
        }
    }

    /// A binary16 as a float; exact.
    static func widened(_ bits: UInt16) -> Float {
        let sign: Float = bits & 0x8000 == 0 ? 1 : -1
        let exponent = Int(bits >> 10 & 0x1F)
        let fraction = Float(bits & 0x3FF)
        switch exponent {
        case 0: return sign * fraction * 0x1p-24
        case 31: return fraction == 0 ? sign * .infinity : .nan
        default: return sign * (1 + fraction * 0x1p-10) * Float(sign: .plus, exponent: exponent - 15, significand: 1)
        }
    }
}
