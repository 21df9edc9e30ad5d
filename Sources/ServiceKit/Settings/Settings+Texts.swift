// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// How values are written as texts: in environment variables and on the command line.
extension Settings {
    /// The values of a list that is written as one text.
    ///
    /// - Parameter text: Values separated by semicolons; `\;` is a semicolon within a value.
    /// - Returns: The values without surrounding spaces; empty ones are left out.
    public static func parts(of text: String) -> [String] {
        var parts: [String] = [""]
        var isEscaped = false
        for character in text {
            switch character {
            case ";" where isEscaped: parts[parts.count - 1].append(";")
            case ";": parts.append("")
            case "\\" where !isEscaped:
                isEscaped = true
                continue
            default:
                // A backslash means itself everywhere else.
                if isEscaped { parts[parts.count - 1].append("\\") }
                parts[parts.count - 1].append(character)
            }
            isEscaped = false
        }
        if isEscaped { parts[parts.count - 1].append("\\") }
        return parts.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }

    /// A list as one text, which ``parts(of:)`` reads.
    ///
    /// - Parameter values: The values.
    /// - Returns: The text.
    public static func join(_ values: [String]) -> String {
        values.map { $0.replacingOccurrences(of: ";", with: "\\;") }.joined(separator: ";")
    }

    /// Refuses a variable whose quotes were meant for a shell: files of container and unit environments keep them.
    static func refuseQuotes(in value: String, of variable: String) throws(Failure) {
        guard value.count >= 2, let quote = value.first, quote == value.last, quote == "\"" || quote == "'" else {
            return
        }
        throw Failure(
            "the environment variable \(variable) begins and ends with \(quote): nothing removed the quotes, so they would be "
                + "part of the value; write it without them"
        )
    }
}

extension Setting where Value == String? {
    /// The most characters in a zone's name, the limit of a DNS label.
    private static var longestZone: Int { 63 }

    /// The zone that a service runs in.
    ///
    /// - Parameter help: What it does.
    /// - Returns: The setting `zone`.
    public static func zone(_ help: String) -> Setting {
        .parsed(
            "zone",
            default: nil,
            written: nil,
            allowed: "a name of 1 to \(Self.longestZone) of A-Z, a-z, 0-9, '.', '_' and '-'",
            range: "1 to \(Self.longestZone) of A-Z, a-z, 0-9, '.', '_' and '-'",
            placeholder: "name",
            help
        ) { text in
            let isLegal = text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
            return isLegal && (1...Self.longestZone).contains(text.utf8.count) ? .some(.some(text)) : nil
        }
    }
}
