// SPDX-License-Identifier: Apache-2.0

/// The encoding of metadata whose keys end in `-bin`: RFC 4648's base64 (section 4), written without padding.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Binary-Header): implementations emit the
/// unpadded form and accept both.
public enum Base64 {
    /// Encodes bytes, without padding.
    ///
    /// - Parameter bytes: Any bytes.
    /// - Returns: Text of the base64 alphabet.
    public static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count * 4 + 2) / 3)
        var index = 0
        while index + 2 < bytes.count {
            let group = UInt32(bytes[index]) << 16 | UInt32(bytes[index + 1]) << 8 | UInt32(bytes[index + 2])
            for shift in [18, 12, 6, 0] as [UInt32] {
                text.append(Self.character(UInt8(group >> shift & 63)))
            }
            index += 3
        }
        switch bytes.count - index {
        case 1:
            text.append(Self.character(bytes[index] >> 2))
            text.append(Self.character(bytes[index] << 4 & 63))
        case 2:
            text.append(Self.character(bytes[index] >> 2))
            text.append(Self.character((bytes[index] << 4 | bytes[index + 1] >> 4) & 63))
            text.append(Self.character(bytes[index + 1] << 2 & 63))
        default:
            break
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Decodes text, padded or not.
    ///
    /// - Parameter text: One value; a list is split at its commas first.
    /// - Returns: The bytes, or nil where a character is outside the alphabet or the length is impossible.
    public static func decode(_ text: some StringProtocol) -> [UInt8]? {
        var digits = Array(text.utf8)
        if digits.count.isMultiple(of: 4) {
            // At most two signs of padding complete a group of four.
            for _ in 0..<2 where digits.last == UInt8(ascii: "=") {
                digits.removeLast()
            }
        }
        guard digits.count % 4 != 1 else {
            return nil
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count * 3 / 4)
        var collected: UInt32 = 0
        var bits: UInt32 = 0
        for digit in digits {
            guard let value = Self.value(digit) else {
                return nil
            }
            collected = collected << 6 | UInt32(value)
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: collected >> bits))
            }
        }
        return bytes
    }

    /// The character of a value below sixty-four.
    private static func character(_ value: UInt8) -> UInt8 {
        switch value {
        case 0..<26: UInt8(ascii: "A") + value
        case 26..<52: UInt8(ascii: "a") + value - 26
        case 52..<62: UInt8(ascii: "0") + value - 52
        case 62: UInt8(ascii: "+")
        default: UInt8(ascii: "/")
        }
    }

    /// The value of a character, or nil outside the alphabet.
    private static func value(_ character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): character - UInt8(ascii: "A")
        case UInt8(ascii: "a")...UInt8(ascii: "z"): character - UInt8(ascii: "a") + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0") + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}
