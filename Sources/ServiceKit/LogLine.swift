// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging

/// Writes one log event as one line: nothing in it can start another line or move the cursor.
enum LogLine {
    /// A line for people: time, level, label, message, then metadata as `key=value`.
    ///
    /// - Parameters:
    ///   - event: The event.
    ///   - metadata: All metadata that applies to it.
    ///   - label: The logger's label.
    ///   - time: When it happened.
    /// - Returns: The line without its end.
    static func text(_ event: LogEvent, metadata: Logger.Metadata, label: String, time: Date) -> String {
        var line = "\(Self.format(time)) \(Self.padded(event.level)) \(label): \(Self.escaped("\(event.message)"))"
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
            line += " \(Self.escaped(key))=\(Self.quoted("\(value)"))"
        }
        return line
    }

    /// A line for programs: one JSON object with `time`, `level`, `label`, `message` and the metadata.
    ///
    /// Metadata with one of these four names gets the prefix `metadata.`. Lists and dictionaries keep their form;
    /// every other value becomes a string.
    ///
    /// - Parameters:
    ///   - event: The event.
    ///   - metadata: All metadata that applies to it.
    ///   - label: The logger's label.
    ///   - time: When it happened.
    /// - Returns: The line without its end.
    static func json(_ event: LogEvent, metadata: Logger.Metadata, label: String, time: Date) -> String {
        var object: [String: JSONValue] = [
            "time": .text(Self.format(time)),
            "level": .text(event.level.rawValue),
            "label": .text(label),
            "message": .text("\(event.message)"),
        ]
        for (key, value) in metadata {
            object[object[key] == nil ? key : "metadata.\(key)"] = JSONValue(value)
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(JSONValue.object(object)) else {
            return Self.text(event, metadata: metadata, label: label, time: time)
        }
        return String(decoding: data, as: UTF8.self)
    }

    private static func format(_ time: Date) -> String {
        time.ISO8601Format(.init(includingFractionalSeconds: true))
    }

    /// The level's name, as wide as the widest.
    private static func padded(_ level: Logger.Level) -> String {
        level.rawValue + String(repeating: " ", count: max(0, "critical".count - level.rawValue.count))
    }

    /// A value, quoted unless it is one word.
    private static func quoted(_ text: String) -> String {
        let isWord = !text.isEmpty && !text.contains { $0 == " " || $0 == "\"" || $0 == "=" }
        guard !isWord else { return Self.escaped(text) }
        return "\"" + Self.escaped(text).replacingOccurrences(of: "\"", with: "\\\"") + "\""
    }

    /// The text with its control characters escaped.
    private static func escaped(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: Self.isControl) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case _ where Self.isControl(scalar): result += "\\u{\(String(scalar.value, radix: 16))}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.generalCategory == .control
    }
}

/// A JSON value of a log line.
private indirect enum JSONValue: Encodable {
    case text(String)
    case list([JSONValue])
    case object([String: JSONValue])

    init(_ value: Logger.Metadata.Value) {
        switch value {
        case .array(let values): self = .list(values.map { JSONValue($0) })
        case .dictionary(let values): self = .object(values.mapValues { JSONValue($0) })
        default: self = .text("\(value)")
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .text(let text): try container.encode(text)
        case .list(let values): try container.encode(values)
        case .object(let values): try container.encode(values)
        }
    }
}
