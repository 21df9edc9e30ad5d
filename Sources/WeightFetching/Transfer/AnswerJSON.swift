// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

/// Reads what a server answers, where that should be JSON.
enum AnswerJSON {
    /// The most values of an answer: ten for each of the most files of a model, and as many again.
    private static let mostValues = 2_000_000

    /// Decodes an answer whose objects have each key once.
    ///
    /// Foundation's decoder is laxer than JSON, and takes the first of two equal keys where other programs take the last,
    /// so the text is checked first.
    ///
    /// - Parameters:
    ///   - type: What to decode.
    ///   - bytes: The answer.
    /// - Returns: The value.
    /// - Throws: `JSONFault` that says what is wrong with the text, or with a value in it.
    static func decode<T: Decodable>(_ type: T.Type, from bytes: [UInt8]) throws(JSONFault) -> T {
        try bytes.withUnsafeBytes { bytes in
            Result { () throws(JSONFault) in
                _ = try JSONText.value(bytes, dialect: .serde, maxValues: self.mostValues, refuseDuplicates: true)
            }
        }
        .get()
        do {
            return try JSONDecoder().decode(type, from: Data(bytes))
        } catch {
            throw JSONFault(message: self.explain(error))
        }
    }

    private static func explain(_ error: any Error) -> String {
        let (context, key): (DecodingError.Context, (any CodingKey)?)
        switch error as? DecodingError {
        case .keyNotFound(let name, let found)?: (context, key) = (found, name)
        case .typeMismatch(_, let found)?, .valueNotFound(_, let found)?, .dataCorrupted(let found)?:
            (context, key) = (found, nil)
        default: return "unreadable"
        }
        let path = (context.codingPath + (key.map { [$0] } ?? [])).map(\.stringValue).joined(separator: ".")
        return
            "\(key == nil ? "a value of another type" : "nothing") at \(path.isEmpty ? "its beginning" : String(path.prefix(120)))"
    }
}
