// SPDX-License-Identifier: Apache-2.0

import Foundation
public import Logging

/// Writes log events to standard error, as lines for people or as one JSON object a line.
public struct StreamLogHandler: LogHandler {
    /// How an event is written.
    public enum Format: String, Sendable, CaseIterable {
        /// `2026-01-31T12:00:00.123Z info gateway listening address=127.0.0.1:7400`
        case text
        /// `{"time":"...","level":"info","label":"gateway","message":"listening","address":"127.0.0.1:7400"}`
        case json
    }

    /// Metadata that every event of this logger carries.
    public var metadata: Logger.Metadata = [:]
    /// The least level that is written.
    public var logLevel: Logger.Level

    private let label: String
    private let format: Format

    /// Creates a handler.
    ///
    /// - Parameters:
    ///   - label: The logger's label.
    ///   - format: How events are written.
    ///   - level: The least level that is written.
    public init(label: String, format: Format, level: Logger.Level) {
        self.label = label
        self.format = format
        self.logLevel = level
    }

    /// Reads or writes one metadata value.
    ///
    /// - Parameter key: The value's key.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    /// Writes an event.
    ///
    /// - Parameter event: The event.
    public func log(event: LogEvent) {
        let all = self.metadata.merging(event.metadata ?? [:]) { _, new in new }
        let time = Date().ISO8601Format(.init(includingFractionalSeconds: true))
        let line =
            switch self.format {
            case .text: Self.text(time, event.level, self.label, "\(event.message)", all)
            case .json: Self.json(time, event.level, self.label, "\(event.message)", all)
            }
        FileHandle.standardError.write(Data((line + "\n").utf8))
    }

    /// Makes this the handler of every logger that is created from now on.
    ///
    /// - Parameters:
    ///   - format: How events are written.
    ///   - level: The least level that is written.
    public static func bootstrap(format: Format, level: Logger.Level) {
        LoggingSystem.bootstrap { label in StreamLogHandler(label: label, format: format, level: level) }
    }

    private static func text(
        _ time: String,
        _ level: Logger.Level,
        _ label: String,
        _ message: String,
        _ metadata: Logger.Metadata
    ) -> String {
        let pairs = metadata.sorted { $0.key < $1.key }
            .map { key, value in
                let text = "\(value)".replacingOccurrences(of: "\n", with: "\\n")
                return " \(key)=" + (text.contains(" ") ? "\"\(text)\"" : text)
            }
        let name = level.rawValue + String(repeating: " ", count: max(0, 7 - level.rawValue.count))
        return "\(time) \(name) \(label): \(message.replacingOccurrences(of: "\n", with: "\\n"))\(pairs.joined())"
    }

    private static func json(
        _ time: String,
        _ level: Logger.Level,
        _ label: String,
        _ message: String,
        _ metadata: Logger.Metadata
    ) -> String {
        var object: [String: String] = Dictionary(
            metadata.map { ($0.key, "\($0.value)") },
            uniquingKeysWith: { first, _ in first }
        )
        object["time"] = time
        object["level"] = level.rawValue
        object["label"] = label
        object["message"] = message
        guard let data = try? JSONEncoder().encode(object) else { return message }
        return String(decoding: data, as: UTF8.self)
    }
}
