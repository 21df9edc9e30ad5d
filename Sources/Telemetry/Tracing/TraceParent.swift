// SPDX-License-Identifier: Apache-2.0

/// A trace's id: 16 bytes, not all zero.
public struct TraceID: Sendable, Hashable, CustomStringConvertible {
    private let high: UInt64
    private let low: UInt64

    /// Makes an id of 16 bytes; nil if all are zero.
    ///
    /// - Parameters:
    ///   - high: The first eight bytes.
    ///   - low: The last eight bytes.
    public init?(high: UInt64, low: UInt64) {
        guard high | low != 0 else { return nil }
        self.high = high
        self.low = low
    }

    /// Draws a random id.
    ///
    /// - Returns: A unique id.
    public static func random() -> TraceID {
        while true {
            if let id = TraceID(high: .random(in: 0...(.max)), low: .random(in: 0...(.max))) { return id }
        }
    }

    /// 32 hexadecimal digits in lower case.
    public var description: String { hexadecimal(self.high) + hexadecimal(self.low) }
}

/// A span's id within a trace: eight bytes, not all zero.
public struct SpanID: Sendable, Hashable, CustomStringConvertible {
    private let bytes: UInt64

    /// Makes an id of eight bytes; nil if all are zero.
    ///
    /// - Parameter bytes: The bytes, the first one the most significant.
    public init?(_ bytes: UInt64) {
        guard bytes != 0 else { return nil }
        self.bytes = bytes
    }

    /// Draws a random id.
    ///
    /// - Returns: A unique id.
    public static func random() -> SpanID {
        while true {
            if let id = SpanID(.random(in: 0...(.max))) { return id }
        }
    }

    /// 16 hexadecimal digits in lower case.
    public var description: String { hexadecimal(self.bytes) }
}

/// The value of a `traceparent` field: the trace, the caller's span, and whether the trace is sampled.
///
/// Source: https://www.w3.org/TR/2021/REC-trace-context-1-20211123/#traceparent-header. Of the flags only the one for
/// sampling is known; the others are written as zero.
public struct TraceParent: Sendable, Hashable, CustomStringConvertible {
    /// The trace.
    public var traceID: TraceID
    /// The caller's span.
    public var spanID: SpanID
    /// Whether the caller may have recorded its part of the trace.
    public var isSampled: Bool

    /// Creates a value.
    ///
    /// - Parameters:
    ///   - traceID: The trace.
    ///   - spanID: The caller's span.
    ///   - isSampled: Whether the trace is sampled.
    public init(traceID: TraceID, spanID: SpanID, isSampled: Bool) {
        self.traceID = traceID
        self.spanID = spanID
        self.isSampled = isSampled
    }

    /// Reads a value: `00-` and 32, 16 and 2 hexadecimal digits in lower case, separated by `-`.
    ///
    /// A later version may have more after another `-`. Version `ff`, all-zero ids and everything else give nil.
    ///
    /// - Parameter text: The field's value.
    public init?(_ text: String) {
        // No sensible later version is longer than this.
        let bytes = Array(text.utf8.prefix(513))
        guard (55...512).contains(bytes.count), bytes[2] == Self.dash, bytes[35] == Self.dash, bytes[52] == Self.dash,
            let version = Self.number(bytes[0..<2]), version != 0xFF,
            let high = Self.number(bytes[3..<19]), let low = Self.number(bytes[19..<35]),
            let span = Self.number(bytes[36..<52]), let flags = Self.number(bytes[53..<55]),
            let traceID = TraceID(high: high, low: low), let spanID = SpanID(span)
        else {
            return nil
        }
        if bytes.count > 55 {
            guard version > 0, bytes[55] == Self.dash else { return nil }
        }
        self.init(traceID: traceID, spanID: spanID, isSampled: flags & 1 != 0)
    }

    /// The value as it is sent.
    public var description: String { "00-\(self.traceID)-\(self.spanID)-\(self.isSampled ? "01" : "00")" }

    private static let dash = UInt8(ascii: "-")

    /// The value of hexadecimal digits in lower case; nil if there is any other character.
    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for digit in digits {
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(digit - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
            default: return nil
            }
        }
        return value
    }
}

/// Eight bytes as 16 hexadecimal digits.
private func hexadecimal(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
