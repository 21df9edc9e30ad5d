// SPDX-License-Identifier: Apache-2.0

import Foundation
public import Logging

/// Writes log events to standard error, as lines for people or as one JSON object per line.
public struct LineLogHandler: LogHandler {
    /// How an event is written.
    public enum Format: String, Sendable, CaseIterable {
        /// A line for people: `2026-01-31T12:00:00.123Z info     gateway: listening address=127.0.0.1:7400`.
        case text
        /// A JSON object: `{"address":"127.0.0.1:7400","label":"gateway","level":"info","message":"listening",...}`.
        case json
    }

    /// Metadata that every event of this logger carries.
    public var metadata: Logger.Metadata = [:]
    /// Provides metadata of the logging task.
    public var metadataProvider: Logger.MetadataProvider?
    /// The lowest level that is written.
    public var logLevel: Logger.Level

    private let label: String
    private let format: Format
    private let write: @Sendable (String) -> Void

    /// Creates a handler.
    ///
    /// - Parameters:
    ///   - label: The logger's label.
    ///   - format: How events are written.
    ///   - level: The lowest level that is written.
    public init(label: String, format: Format, level: Logger.Level) {
        self.init(label: label, format: format, level: level, write: { StandardStream.error.write($0) })
    }

    /// Creates a handler that writes elsewhere.
    init(label: String, format: Format, level: Logger.Level, write: @escaping @Sendable (String) -> Void) {
        self.label = label
        self.format = format
        self.logLevel = level
        self.write = write
    }

    /// Reads or writes one metadata value.
    ///
    /// - Parameter key: The value's key.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    /// Writes an event; if a key has several values the event's own wins, then the task's, then the logger's.
    ///
    /// - Parameter event: The event.
    public func log(event: LogEvent) {
        var metadata = self.metadata
        if let error = event.error { metadata["error"] = "\(error)" }
        metadata.merge(self.metadataProvider?.get() ?? [:]) { _, new in new }
        metadata.merge(event.metadata ?? [:]) { _, new in new }
        let line =
            switch self.format {
            case .text: LogLine.text(event, metadata: metadata, label: self.label, time: Date())
            case .json: LogLine.json(event, metadata: metadata, label: self.label, time: Date())
            }
        self.write(line + "\n")
    }

    /// Makes this the handler of every logger created from now on; call it at most once per process.
    ///
    /// From then on the process's output waits in bounded queues (``StandardStream/writeBehind(note:endsWithOutput:)``), and
    /// a line in the same format says where lines were dropped.
    ///
    /// - Parameters:
    ///   - format: How events are written.
    ///   - level: The lowest level that is written.
    public static func bootstrap(format: Format, level: Logger.Level) {
        StandardStream.writeBehind(note: { Self.note($0, format: format, time: Date()) }, endsWithOutput: true)
        LoggingSystem.bootstrap { label in LineLogHandler(label: label, format: format, level: level) }
    }

    /// The line that stands for lines that were dropped.
    ///
    /// - Parameters:
    ///   - count: How many were dropped.
    ///   - format: How events are written.
    ///   - time: When it is written.
    /// - Returns: The line with its end.
    static func note(_ count: Int, format: Format, time: Date) -> String {
        let event = LogEvent(
            level: .warning,
            message: "\(StandardStream.note(count))",
            error: nil,
            metadata: nil,
            source: nil,
            file: "",
            function: "",
            line: 0
        )
        let label = "switchyard"
        switch format {
        case .text: return LogLine.text(event, metadata: [:], label: label, time: time) + "\n"
        case .json: return LogLine.json(event, metadata: [:], label: label, time: time) + "\n"
        }
    }
}
