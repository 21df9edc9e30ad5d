// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

/// Ids that stand for single characters, each a code point: the id is the character's place in a list.
///
/// Models of labml's text experiments have it: `sorted(set(text))` of the text that they learnt from.
struct CharacterVocabulary: Sendable {
    private let characters: [Unicode.Scalar]
    private let ids: [Unicode.Scalar: Int32]

    /// The key of `config.json` that lists the characters.
    static let key = "characters"

    /// Reads a list of characters.
    ///
    /// - Parameters:
    ///   - text: The characters in the order of their ids.
    ///   - path: The file's name in errors.
    /// - Throws: `TokenizerError` for no characters, and for one that is there twice.
    init(_ text: String, path: String) throws(TokenizerError) {
        self.characters = Array(text.unicodeScalars)
        var ids: [Unicode.Scalar: Int32] = [:]
        for (place, character) in self.characters.enumerated() {
            guard let id = Int32(exactly: place) else { break }
            if let first = ids.updateValue(id, forKey: character) {
                throw TokenizerError(
                    .malformedFile,
                    "\(Self.key) has \(Self.name(character)) at places \(first) and \(place); each character has one id, so "
                        + "list it once",
                    file: path
                )
            }
        }
        guard !ids.isEmpty else {
            throw TokenizerError(.malformedFile, "\(Self.key) is empty; list the model's characters", file: path)
        }
        self.ids = ids
    }

    /// The characters that a `config.json` lists.
    ///
    /// - Parameter path: The file.
    /// - Returns: Its `characters`; nil where there is no such file or key, as for other models.
    /// - Throws: `TokenizerError` for a file that cannot be read, or where `characters` is no string.
    static func listed(in path: String) throws(TokenizerError) -> String? {
        // What is no JSON object at all the model's own reader reports.
        guard FileManager.default.fileExists(atPath: path), let fields = try? JSON.object(at: path) else { return nil }
        switch fields[Self.key] {
        case nil, .null?: return nil
        case .string(let text)?: return text
        case .some(let value):
            throw TokenizerError(
                .malformedFile,
                "\(Self.key) must be a string, but is \(JSON.text(value)); write the characters one after another",
                file: path
            )
        }
    }

    /// The number of ids.
    var count: Int { self.characters.count }

    /// The character of an id.
    ///
    /// - Parameter id: Any number.
    /// - Returns: The character, or nil when no character has this id.
    func text(of id: Int32) -> String? {
        id >= 0 && Int(id) < self.characters.count ? String(Character(self.characters[Int(id)])) : nil
    }

    /// The ids of a text's characters, those without an id left out.
    func knownIDs(of text: String) -> [Int32] { text.unicodeScalars.compactMap { self.ids[$0] } }

    /// The ids of a text's characters.
    ///
    /// - Parameters:
    ///   - text: Any text.
    ///   - limits: What it may cost.
    /// - Returns: One id for each code point.
    /// - Throws: `TokenizerError` that names the first character without an id, or the limit.
    func ids(of text: String, limits: TextLimits) throws(TokenizerError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(min(text.utf8.count, limits.ids))
        for (place, character) in text.unicodeScalars.enumerated() {
            guard let id = self.ids[character] else {
                throw TokenizerError(
                    .unknownCharacter,
                    "has \(Self.name(character)) at place \(place), which is not among the model's \(self.count) characters; "
                        + "leave it out"
                )
            }
            guard ids.count < limits.ids else {
                throw TokenizerError(
                    .tooLong,
                    "has more than \(limits.ids) tokens, which is the limit; send a shorter text"
                )
            }
            ids.append(id)
        }
        return ids
    }

    /// A character for people: itself where it can be shown, and its number.
    private static func name(_ character: Unicode.Scalar) -> String {
        let digits = String(character.value, radix: 16, uppercase: true)
        let number = "U+" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
        let isShown = character.properties.isGraphemeBase && !character.properties.isWhitespace
        return isShown ? "\"\(character)\" (\(number))" : number
    }
}
