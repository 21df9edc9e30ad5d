// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import Synchronization
import Testing

@testable import ServiceKit

/// What a handler wrote.
private final class Written: Sendable {
    private let texts = Mutex<[String]>([])

    var lines: [String] { self.texts.withLock { $0 } }

    func append(_ text: String) {
        self.texts.withLock { $0.append(text) }
    }
}

private func logger(_ format: LineLogHandler.Format, _ written: Written) -> Logger {
    Logger(label: "gateway") { label in
        LineLogHandler(label: label, format: format, level: .info, write: { written.append($0) })
    }
}

private struct Broken: Error, CustomStringConvertible {
    let description = "the disk is gone"
}

@Suite("Logging")
struct LogHandlerTests {
    @Test("a line for people has time, level, label, message and ordered metadata")
    func text() throws {
        let written = Written()
        var logger = logger(.text, written)
        logger[metadataKey: "address"] = "127.0.0.1:7400"
        logger.info("listening", metadata: ["pools": "4", "because": "a flag says so", "empty": ""])
        let line = try #require(written.lines.first)
        let time = line.prefix { $0 != " " }
        #expect(time.hasSuffix("Z") && time.contains(".") && time.contains("T"))
        #expect(
            line.dropFirst(time.count)
                == " info     gateway: listening address=127.0.0.1:7400 because=\"a flag says so\" empty=\"\" pools=4\n"
        )
    }

    @Test("the level decides what is written")
    func level() {
        let written = Written()
        var logger = logger(.text, written)
        logger.debug("hidden")
        #expect(written.lines.isEmpty)
        logger.logLevel = .debug
        logger.debug("shown")
        #expect(written.lines.count == 1)
    }

    @Test("nothing in an event starts another line or moves the cursor", arguments: LineLogHandler.Format.allCases)
    func injection(format: LineLogHandler.Format) {
        let written = Written()
        logger(format, written)
            .error(
                "one\ntwo\r\u{1B}[2J",
                metadata: ["a\nb": "x\ny", "quote": "say \"hi\""]
            )
        #expect(written.lines.count == 1)
        let line = written.lines.first ?? ""
        #expect(line.hasSuffix("\n"))
        #expect(!line.dropLast().unicodeScalars.contains { $0.properties.generalCategory == .control })
        #expect(line.contains(#"say \"hi\""#))
    }

    @Test("a line for programs is a JSON object; lists and dictionaries keep their form")
    func json() throws {
        let written = Written()
        logger(.json, written)
            .warning(
                "slow",
                metadata: [
                    "replica": "h:1", "rows": "3", "layers": ["1", "3"], "host": ["name": "h"], "level": "mine",
                ]
            )
        let line = try #require(written.lines.first)
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        )
        #expect(object["level"] as? String == "warning")
        #expect(object["message"] as? String == "slow")
        #expect(object["label"] as? String == "gateway")
        #expect(object["replica"] as? String == "h:1")
        #expect(object["layers"] as? [String] == ["1", "3"])
        #expect(object["host"] as? [String: String] == ["name": "h"])
        #expect(object["metadata.level"] as? String == "mine")
        #expect((object["time"] as? String)?.hasSuffix("Z") == true)
    }

    @Test("the event's metadata overrides the task's, which overrides the logger's; an error is shown")
    func metadataOrder() {
        let written = Written()
        var handler = LineLogHandler(label: "l", format: .text, level: .info, write: { written.append($0) })
        handler.metadata = ["a": "logger", "b": "logger", "c": "logger"]
        handler.metadataProvider = Logger.MetadataProvider { ["b": "task", "c": "task"] }
        handler.log(
            event: LogEvent(
                level: .error,
                message: "failed",
                error: Broken(),
                metadata: ["c": "event"],
                source: nil,
                file: "",
                function: "",
                line: 1
            )
        )
        #expect(
            written.lines.first?.hasSuffix("failed a=logger b=task c=event error=\"the disk is gone\"\n") == true,
            "\(written.lines)"
        )
    }
}
