// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Testing

@testable import Telemetry

@Suite("The table of metrics")
struct MetricCatalogTests {
    /// A registry's text in which every family of the table has a series.
    private static func everything() -> String {
        var snapshot = MetricSnapshot()
        for definition in MetricCatalog.all {
            let labels = definition.labels.map { "some \($0)" }
            switch definition.kind {
            case .counter, .gauge: snapshot.set(definition, labels, 1)
            case .histogram(let buckets):
                var counts = HistogramCounts(buckets)
                counts.add(1)
                snapshot.set(definition, labels, counts)
            }
        }
        #expect(snapshot.undescribed.isEmpty)
        return String(decoding: PrometheusText.render(MetricCatalog.all, snapshot), as: UTF8.self)
    }

    @Test("every metric has a help text, and follows Prometheus' naming conventions")
    func conventions() {
        #expect(Set(MetricCatalog.all.map(\.name)).count == MetricCatalog.all.count)
        for definition in MetricCatalog.all {
            let name = definition.name
            #expect(name.hasPrefix("switchyard_") || name.hasPrefix("process_"), "\(name)")
            #expect(PrometheusLint.isName(name), "\(name)")
            #expect((definition.kind == .counter) == name.hasSuffix("_total"), "\(name)")
            let isSentence = definition.help.last == "." && definition.help.count > 10
            #expect(isSentence, "\(name): \(definition.help)")
            #expect(!definition.help.contains("\n") && !definition.help.contains("|"), "\(name)")
            for label in definition.labels {
                #expect(PrometheusLint.isName(label), "\(name): \(label)")
                #expect(!["le", "job", "instance", "quantile"].contains(label), "\(name): \(label)")
            }
            // Base units only: a name with another unit would be off by a factor.
            for unit in ["_ms", "_milliseconds", "_microseconds", "_us", "_kib", "_mib", "_percent", "_minutes"] {
                #expect(!name.hasSuffix(unit) && !name.hasSuffix("\(unit)_total"), "\(name)")
            }
        }
    }

    @Test("all of it passes this project's own linter")
    func lint() {
        #expect(PrometheusLint.offences(in: Self.everything()) == [])
    }

    @Test("the linter finds faults")
    func lintFinds() {
        let bad = [
            "a 1\n", "# HELP a A.\n# TYPE a counter\na 1\n", "# HELP a A.\n# TYPE a gauge\na one\n",
            "# HELP a A.\n# TYPE a gauge\na 1\na 2\n", "# TYPE a gauge\na 1\n", "# HELP a A.\n# TYPE a gauge\na 1",
            "# HELP a_seconds A.\n# TYPE a_seconds histogram\na_seconds_sum 1\na_seconds_count 1\n",
        ]
        for text in bad { #expect(!PrometheusLint.offences(in: text).isEmpty, "\(text)") }
    }

    @Test("promtool finds no fault", .enabled(if: Promtool.path != nil))
    func promtool() async throws {
        let said = try await Promtool.check(Self.everything())
        #expect(said == "")
    }

    @Test("every name appears whole in the sources, once, so that a search finds its definition")
    func wholeNames() throws {
        let folder = URL(fileURLWithPath: "\(Peers.root)/Sources")
        let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
        var places: [String: [String]] = [:]
        var assembled: [String] = []
        let names = Set(MetricCatalog.all.map(\.name))
        while let file = files?.nextObject() as? URL {
            guard file.pathExtension == "swift" else { continue }
            let text = try String(contentsOf: file, encoding: .utf8)
            // Every second piece between quotes is a literal; what escaped quotes add begins with no metric's prefix.
            for literal in text.split(separator: "\"", omittingEmptySubsequences: false) {
                guard literal.hasPrefix("switchyard_") || literal.hasPrefix("process_") else { continue }
                if names.contains(String(literal)) {
                    places[String(literal), default: []].append(file.lastPathComponent)
                } else if literal.hasSuffix("_") || literal.contains("\\(") {
                    assembled.append("\(file.lastPathComponent): \(literal)")
                }
            }
        }
        #expect(assembled == [])
        for name in names.sorted() {
            #expect(places[name]?.count == 1, "\(name): \(places[name] ?? [])")
        }
    }

    @Test("the guides have the same table, word for word")
    func documentation() throws {
        let guide = try ["operations", "training"]
            .map { try String(contentsOfFile: "\(Peers.root)/docs/\($0).md", encoding: .utf8) }.joined()
        let rows = Set(
            guide.split(separator: "\n").filter { $0.hasPrefix("| `switchyard_") || $0.hasPrefix("| `process_") }
                .map { String($0) }
        )
        let table = MetricCatalog.all.map { definition in
            let labels = definition.labels.map { "`\($0)`" }.joined(separator: ", ")
            let cells = ["`\(definition.name)`", definition.kind.name, labels, definition.help]
            return "|" + cells.map { $0.isEmpty ? " |" : " \($0) |" }.joined()
        }
        #expect(Set(table).subtracting(rows).sorted() == [])
        #expect(rows.subtracting(table).sorted() == [])
    }
}

/// Prometheus' own checker, if it is installed.
enum Promtool {
    /// Where it is.
    static let path = ["/usr/bin/promtool", "/usr/local/bin/promtool"]
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    /// Its complaints about a text; empty if there are none.
    static func check(_ text: String) async throws -> String {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("metrics-\(UUID().uuidString).txt")
        try Data(text.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let program = try #require(Self.path)
        let output = try await PeerProcess.run(
            "/bin/sh",
            ["-c", "\"$0\" check metrics < \"$1\" 2>&1", program, file.path]
        )
        return output.status == 0 ? output.text : "status \(output.status): \(output.text)"
    }
}
