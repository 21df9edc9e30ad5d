// SPDX-License-Identifier: Apache-2.0

/// The encoding of `grpc-message`: UTF-8 whose bytes outside printable ASCII, and `%`, are written as `%XX`.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Percent-Encoded).
public enum PercentEncoding {
    /// Encodes a status message.
    ///
    /// A space at either end is encoded too, although gRPC's grammar allows it: HTTP/2 forbids it there (RFC 9113,
    /// section 8.2.1), and every decoder undoes it.
    ///
    /// - Parameter text: Any text.
    /// - Returns: Text of printable ASCII only, without spaces at its ends.
    public static func encode(_ text: String) -> String {
        let source = text.utf8
        let space = UInt8(ascii: " ")
        guard source.first == space || source.last == space || source.contains(where: { !Self.isPlain($0) }) else {
            return text
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(source.count + 16)
        let last = source.count - 1
        for (index, byte) in source.enumerated() {
            if Self.isPlain(byte), byte != space || (index > 0 && index < last) {
                bytes.append(byte)
            } else {
                bytes.append(UInt8(ascii: "%"))
                bytes.append(Self.hexadecimal(byte >> 4))
                bytes.append(Self.hexadecimal(byte & 15))
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Encodes a status message and truncates it to a limit.
    ///
    /// - Parameters:
    ///   - text: Any text.
    ///   - limitBytes: The most bytes of the result, at least 3.
    /// - Returns: Text of printable ASCII only; three dots mark a truncated end.
    public static func encode(_ text: String, limitBytes: Int) -> String {
        if text.utf8.count <= limitBytes {
            let whole = Self.encode(text)
            if whole.utf8.count <= limitBytes { return whole }
        }
        var room = limitBytes - 3
        var kept = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            let standsForItself = kept.isEmpty && scalar == " " ? false : Self.isPlain(scalar)
            let cost = standsForItself ? 1 : 3 * String(scalar).utf8.count
            guard cost <= room else { break }
            room -= cost
            kept.append(scalar)
        }
        return Self.encode(String(kept) + "...")
    }

    /// Decodes a status message; never fails.
    ///
    /// A `%` without two hexadecimal digits stands for itself, and bytes that are not UTF-8 become U+FFFD: a message
    /// that is hard to read is better than a status that is lost.
    ///
    /// - Parameter text: A header's value.
    /// - Returns: The message.
    public static func decode(_ text: String) -> String {
        guard text.utf8.contains(UInt8(ascii: "%")) else {
            return text
        }
        let source = Array(text.utf8)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(source.count)
        var index = 0
        while index < source.count {
            if source[index] == UInt8(ascii: "%"), index + 2 < source.count,
                let high = Self.value(source[index + 1]), let low = Self.value(source[index + 2])
            {
                bytes.append(high << 4 | low)
                index += 3
            } else {
                bytes.append(source[index])
                index += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Whether a character stands for itself, except a space at either end.
    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII && Self.isPlain(UInt8(scalar.value))
    }

    /// Whether a byte stands for itself.
    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte <= 0x7E && byte != UInt8(ascii: "%")
    }

    /// The upper-case hexadecimal digit of a value below sixteen.
    private static func hexadecimal(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "A") + value - 10
    }

    /// The value of a hexadecimal digit of either case.
    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        default: nil
        }
    }
}
