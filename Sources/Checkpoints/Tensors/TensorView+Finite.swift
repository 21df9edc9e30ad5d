// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension TensorView {
    /// The index of the first element that is an infinity or not a number; nil where all are finite.
    ///
    /// Reads the whole tensor, eight bytes at a time. Elements of integer types are always finite.
    public var firstNonFinite: Int? {
        // An element is not finite if all bits of its exponent are set.
        // Adding the exponent's lowest bit to its bits alone reaches the sign's place only then.
        let (exponent, lowest, sign): (UInt64, UInt64, UInt64)
        switch self.dtype {
        case .float32: (exponent, lowest, sign) = (0x7F80_0000_7F80_0000, 0x0080_0000_0080_0000, 0x8000_0000_8000_0000)
        case .bfloat16: (exponent, lowest, sign) = (0x7F80_7F80_7F80_7F80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000)
        case .float16: (exponent, lowest, sign) = (0x7C00_7C00_7C00_7C00, 0x0400_0400_0400_0400, 0x8000_8000_8000_8000)
        case .float64: (exponent, lowest, sign) = (0x7FF0_0000_0000_0000, 0x0010_0000_0000_0000, 0x8000_0000_0000_0000)
        default: return nil
        }
        let size = self.dtype.byteCount
        return self.withUnsafeBytes { bytes in
            let whole = bytes.count / 8 * 8
            for start in stride(from: 0, to: bytes.count, by: 8) {
                var word: UInt64 = 0
                if start < whole {
                    word = bytes.loadUnaligned(fromByteOffset: start, as: UInt64.self)
                } else {
                    for offset in start..<bytes.count { word |= UInt64(bytes[offset]) << UInt64(8 * (offset - start)) }
                }
                let found = ((word & exponent) &+ lowest) & sign
                if found != 0 { return (start + found.trailingZeroBitCount / 8) / size }
            }
            return nil
        }
    }
}

extension TensorView {
    /// Checks that every element is finite.
    ///
    /// - Parameter file: The file or folder that holds the tensor, for the message.
    /// - Throws: `notFinite` that names the tensor and the first element that is not.
    public func requireFinite(in file: String) throws(CheckpointError) {
        guard let index = self.firstNonFinite else { return }
        var place: [Int] = []
        var rest = index
        for extent in self.shape.reversed() {
            place.insert(rest % max(1, extent), at: 0)
            rest /= max(1, extent)
        }
        throw CheckpointError(
            code: .notFinite,
            message:
                "has an element that is nan or infinite, at \(place); every answer would be nonsense, so fetch the "
                + "checkpoint again, or take an earlier one of the training",
            file: file,
            tensor: self.name
        )
    }
}
