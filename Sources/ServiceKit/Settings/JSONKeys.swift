// SPDX-License-Identifier: Apache-2.0

/// Finds the lines of a JSON object's keys, for messages.
enum JSONKeys {
    /// The keys of the outermost object.
    ///
    /// - Parameter text: A text that a JSON parser accepted; for any other the result is meaningless.
    /// - Returns: Each key as it is written, with its line, in the text's order.
    static func find(in text: some Sequence<UInt8>) -> [(key: String, line: Int)] {
        var keys: [(key: String, line: Int)] = []
        var line = 1
        var depth = 0
        var string: [UInt8]?
        var isEscaped = false
        /// The last string of the outermost object, and its line; it is a key if a colon follows.
        var last: (key: String, line: Int)?
        for byte in text {
            if byte == UInt8(ascii: "\n") { line += 1 }
            if var open = string {
                if byte == UInt8(ascii: "\""), !isEscaped {
                    last = (String(decoding: open, as: UTF8.self), line)
                    string = nil
                    continue
                }
                isEscaped = byte == UInt8(ascii: "\\") && !isEscaped
                open.append(byte)
                string = open
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): string = []
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: ":"):
                if let last, depth == 1 { keys.append(last) }
            default: break
            }
        }
        return keys
    }
}
