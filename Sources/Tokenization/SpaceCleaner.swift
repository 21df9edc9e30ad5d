// SPDX-License-Identifier: Apache-2.0

/// Takes the spaces in front of punctuation out of a text that comes in parts, where `clean_up_tokenization_spaces` of a
/// tokenizer says so.
///
/// The replacements and their order are those of `clean_up_tokenization` in transformers
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_base.py). Text that may
/// be the beginning of a pattern is held back until it is decided.
struct SpaceCleaner: Sendable {
    /// One replacement in a text.
    private struct Stage: Sendable {
        let pattern: [UInt8]
        let replacement: [UInt8]
        var pending: [UInt8] = []

        mutating func feed(_ bytes: [UInt8]) -> [UInt8] {
            self.pending += bytes
            var output: [UInt8] = []
            var index = 0
            while index < self.pending.count {
                let rest = self.pending[index...]
                let common = zip(rest, self.pattern).prefix { $0 == $1 }.count
                if common == self.pattern.count {
                    output += self.replacement
                    index += common
                } else if common == rest.count {
                    break
                } else {
                    output.append(self.pending[index])
                    index += 1
                }
            }
            self.pending.removeFirst(index)
            return output
        }

        mutating func finish() -> [UInt8] {
            defer { self.pending = [] }
            return self.pending
        }
    }

    private var stages = [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
        (" 've", "'ve"), (" 're", "'re"),
    ]
    .map { Stage(pattern: Array($0.0.utf8), replacement: Array($0.1.utf8)) }

    /// Adds a part of the text.
    ///
    /// - Parameter text: The part.
    /// - Returns: The text that is decided now.
    mutating func feed(_ text: String) -> String {
        var bytes = Array(text.utf8)
        for index in self.stages.indices {
            bytes = self.stages[index].feed(bytes)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Ends the text.
    ///
    /// - Returns: The text that was held back.
    mutating func finish() -> String {
        var bytes: [UInt8] = []
        for index in self.stages.indices {
            bytes = self.stages[index].feed(bytes)
            bytes += self.stages[index].finish()
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
