// SPDX-License-Identifier: Apache-2.0

/// Texts for people that quote what a file or a server says.
public enum ErrorText {
    /// The most bytes of a text: a few lines of a terminal, and of a log.
    public static let mostBytes = 4_096

    /// Makes a text fit to be shown: no longer than ``mostBytes``, and without control characters.
    ///
    /// A file can hold a name of a gigabyte, or one that moves a terminal's cursor. Line ends and tabs stay.
    ///
    /// - Parameter text: Any text.
    /// - Returns: The text; control characters as `\x1b`, what is too long cut, with `...` at its end.
    public static func shown(_ text: String) -> String {
        let isPlain = text.utf8.count <= self.mostBytes && text.unicodeScalars.allSatisfy { !self.isControl($0) }
        guard !isPlain else { return text }
        var output = ""
        var count = 0
        for scalar in text.unicodeScalars {
            let part = self.isControl(scalar) ? "\\x" + String(scalar.value, radix: 16) : String(scalar)
            count += part.utf8.count
            guard count <= self.mostBytes - 3 else { return output + "..." }
            output += part
        }
        return output
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "\n", "\t": false
        default: scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
        }
    }
}
