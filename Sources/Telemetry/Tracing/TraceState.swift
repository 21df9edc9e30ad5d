// SPDX-License-Identifier: Apache-2.0

/// The content of `tracestate` for other tracing systems, passed on unread.
///
/// Source: https://www.w3.org/TR/2021/REC-trace-context-1-20211123/#tracestate-header. A list that breaks the format is
/// dropped whole, and so is one longer than the 512 characters that everyone must pass on.
public enum TraceState {
    /// The most characters that are passed on.
    static let limit = 512

    /// The most members that a list may have.
    static let memberLimit = 32

    /// Joins the values of all `tracestate` fields of a call into one.
    ///
    /// - Parameter values: The fields' values, in order.
    /// - Returns: The list as it is passed on; nil if there is none or it breaks the format.
    public static func joined(_ values: [String]) -> String? {
        guard !values.isEmpty, values.reduce(0, { $0 + $1.utf8.count + 1 }) <= self.limit + 1 else { return nil }
        var members: [Substring] = []
        var keys: Set<Substring> = []
        for value in values {
            for member in value.split(separator: ",", omittingEmptySubsequences: false) {
                let member = member.trimmingOptionalSpace
                // Empty members are allowed, so that fields can be joined without looking at them.
                if member.isEmpty { continue }
                guard let equals = member.firstIndex(of: "="), Self.isKey(member[..<equals]),
                    Self.isValue(member[member.index(after: equals)...]), keys.insert(member[..<equals]).inserted
                else {
                    return nil
                }
                members.append(member)
            }
        }
        return members.isEmpty || members.count > self.memberLimit ? nil : members.joined(separator: ",")
    }

    /// A letter or digit, then up to 255 letters, digits and `_-*/@`, all in lower case.
    ///
    /// As in the second level of the standard, which allows all keys of the first and a few more
    /// (https://www.w3.org/TR/trace-context-2/#key).
    private static func isKey(_ key: Substring) -> Bool {
        guard (1...256).contains(key.utf8.count), let first = key.utf8.first else { return false }
        return Self.isLetterOrDigit(first)
            && key.utf8.allSatisfy { Self.isLetterOrDigit($0) || Self.keyMarks.contains($0) }
    }

    private static let keyMarks: Set<UInt8> = Set("_-*/@".utf8)

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: false
        }
    }

    /// Up to 256 printable characters, without `,` and `=`, and the last one is not a space.
    private static func isValue(_ value: Substring) -> Bool {
        (1...256).contains(value.utf8.count) && value.last != " "
            && value.utf8.allSatisfy {
                (0x20...0x7E).contains($0) && $0 != UInt8(ascii: ",") && $0 != UInt8(ascii: "=")
            }
    }
}

extension Substring {
    /// The text without spaces and tabs at its ends.
    fileprivate var trimmingOptionalSpace: Substring {
        var text = self.drop { $0 == " " || $0 == "\t" }
        while let last = text.last, last == " " || last == "\t" { text.removeLast() }
        return text
    }
}
