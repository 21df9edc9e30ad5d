// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TrainingData

@Suite("Lines that cannot be used")
struct LineFaultTests {
    private static let json = ExampleFormat.jsonLines(input: "input", target: "target")

    private func reason(_ bytes: [UInt8], _ format: ExampleFormat) -> LineFault.Reason? {
        do {
            _ = try LineTexts(.bytes(bytes), format)
            return nil
        } catch {
            return error
        }
    }

    @Test(
        "say why, in JSON",
        arguments: [
            ("", "empty"), (" \t", "empty"), ("{\"input\": \"a\"", "no JSON object"), ("[1]", "no JSON object"),
            ("\"text\"", "no JSON object"), ("{\"input\": \"a\"}", "no field \"target\""),
            ("{\"input\": \"a\", \"target\": 3}", "\"target\" is no text"),
            ("{\"input\": null, \"target\": \"b\"}", "\"input\" is no text"),
            ("{\"input\": \"a\", \"target\": \" \"}", "\"target\" is empty"),
            ("{\"input\": \"a\\u0000\", \"target\": \"b\"}", "holds NUL"), ("a\0b", "holds NUL"),
            ("{\"Input\": \"a\", \"target\": \"b\"}", "no field \"input\""),
        ]
    )
    func json(line: String, kind: String) {
        #expect(self.reason(Array(line.utf8), Self.json)?.kind == kind)
    }

    @Test("say why, in tables and in text")
    func others() {
        let table = ExampleFormat.tabSeparated(input: 1, target: 3)
        #expect(self.reason(Array("a\tb".utf8), table) == .missingColumn(3, found: 2))
        #expect(self.reason(Array("a\tb\t ".utf8), table) == .emptyField("column 3"))
        #expect(self.reason(Array("a\tb\tc\td".utf8), table) == nil)
        #expect(self.reason([0x61, 0xFF, 0x62], .text) == .notUTF8)
        #expect(self.reason([0xC3], Self.json) == .notUTF8)
        #expect(throws: LineFault.Reason.tooManyBytes(limit: 7)) { try LineTexts(.tooLong(limit: 7), .text) }
    }

    @Test("give the fields or columns asked for, whatever else a line has")
    func fields() throws {
        let line = Array(#"{"id": 7, "q": "caf\u00e9", "a": "x\ty", "more": {"q": []}}"#.utf8)
        let texts = try LineTexts(.bytes(line), .jsonLines(input: "q", target: "a"))
        #expect(texts == .pair(input: "caf\u{e9}", target: "x\ty"))
        let row = try LineTexts(.bytes(Array("1\ttarget\t\tinput".utf8)), .tabSeparated(input: 4, target: 2))
        #expect(row == .pair(input: "input", target: "target"))
    }

    @Test("are summed up by kind, each with its first place")
    func summary() {
        var summary = FaultSummary()
        for number in [9, 12, 40] {
            summary.add(LineFault(LinePlace(file: "data.jsonl", number: number), .missingField("target", found: ["a"])))
        }
        summary.add(LineFault(LinePlace(file: "data.jsonl", number: 3), .notUTF8))
        #expect(summary.count == 4)
        let lines = summary.description.split(separator: "\n")
        #expect(
            lines.first
                == "3 lines (no field \"target\"), the first: data.jsonl:9: there is no field \"target\"; the line has \"a\""
        )
        #expect(lines.last?.hasPrefix("1 line (not UTF-8), the first: data.jsonl:3: ") == true)
    }

    @Test(
        "formats that cannot be meant are refused",
        arguments: [
            ExampleFormat.jsonLines(input: "a", target: "a"), .jsonLines(input: "", target: "b"),
            .tabSeparated(input: 0, target: 1), .tabSeparated(input: 2, target: 2),
        ]
    )
    func formats(format: ExampleFormat) {
        #expect(#expect(throws: DataError.self) { try format.check() }?.code == .invalidSettings)
    }
}
