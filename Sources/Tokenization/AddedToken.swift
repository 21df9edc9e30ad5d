// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// A token that is looked for in a text before its pieces are: a sentinel, a named token such as `</s>`, or a word that
/// was added to a finished vocabulary.
///
/// The fields are those of the tokenizers library
/// (https://github.com/huggingface/tokenizers/blob/v0.23.1/tokenizers/src/tokenizer/added_vocabulary.rs).
struct AddedToken: Sendable {
    /// The literal text.
    var content: String

    /// Whether it counts only where no letter, digit, mark or connector touches it.
    var isSingleWord = false

    /// Whether white space in front of it is part of it.
    var stripsLeft = false

    /// Whether white space behind it is part of it.
    var stripsRight = false

    /// Whether it is looked for in normalized text, itself normalized; nil where the file does not say.
    var normalized: Bool?

    /// Whether decoding can leave it out.
    var isSpecial = false

    /// Whether it is looked for in normalized text: by default only a token that is not special.
    var isNormalized: Bool { self.normalized ?? !self.isSpecial }

    /// The text's UTF-8, since strings that differ in their normalization compare as equal.
    var key: [UInt8] { Array(self.content.utf8) }
}

extension AddedToken: Equatable {
    static func == (first: Self, second: Self) -> Bool {
        first.key == second.key && first.isSingleWord == second.isSingleWord
            && first.stripsLeft == second.stripsLeft && first.stripsRight == second.stripsRight
            && first.isNormalized == second.isNormalized && first.isSpecial == second.isSpecial
    }
}

extension AddedToken {
    /// Reads a token's object, as `added_tokens_decoder`, `special_tokens_map.json` and `tokenizer.json` have it.
    ///
    /// - Parameters:
    ///   - object: The fields; those that are missing are false, and `normalized` is the opposite of `special`.
    ///   - key: The object's name in errors.
    /// - Throws: `TokenizerFileFault` that names the field.
    init(_ object: [String: JSON], key: String) throws(TokenizerFileFault) {
        guard case .string(let content) = object["content"] else {
            throw .init("\(key).content is \(JSON.text(object["content"])), where a string is needed")
        }
        func flag(_ name: String) throws(TokenizerFileFault) -> Bool? {
            switch object[name] {
            case nil: nil
            case .bool(let value): value
            case let value: throw .init("\(key).\(name) is \(JSON.text(value)), where true or false is needed")
            }
        }
        self.content = content
        self.isSingleWord = try flag("single_word") ?? false
        self.stripsLeft = try flag("lstrip") ?? false
        self.stripsRight = try flag("rstrip") ?? false
        self.normalized = try flag("normalized")
        self.isSpecial = try flag("special") ?? false
    }
}
