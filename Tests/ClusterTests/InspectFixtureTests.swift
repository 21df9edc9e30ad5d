// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

/// `inspect` and the services agree on every fixture: sound where transformers' answers are given, and refused in the same
/// words where serving is refused.
@Suite("switchyard inspect, every fixture")
struct InspectFixtureTests {
    private struct Case: Decodable {
        var base: String?
        var without: [String]?
        var overrides: [String: String]?
        var refused: [String]?
    }

    private static let fixtures = URL(fileURLWithPath: "\(TestCluster.root)/Tests/Fixtures")

    /// `cases/NAME`, `dense/NAME` and `adapters/NAME`.
    static let names = ["cases", "dense", "adapters"]
        .flatMap { group in
            let folder = Self.fixtures.appendingPathComponent(group).path
            return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
                .map { "\(group)/\($0)" }
        }

    /// Refused for what only reading all weights shows, which `inspect` does not do.
    private static let foundByReading: Set = ["cases/not-finite"]

    @Test("there are fixtures of all three kinds")
    func present() {
        #expect(Self.names.count >= 90)
    }

    @Test("the report has a problem exactly where serving is refused", arguments: names)
    func agrees(name: String) throws {
        let own = Self.fixtures.appendingPathComponent(name)
        let description = try JSONDecoder()
            .decode(Case.self, from: Data(contentsOf: own.appendingPathComponent("case.json")))
        let isDense = name.hasPrefix("dense/")
        let base = isDense ? description.base.map { "dense/\($0)" } : "cases/plain"
        let folder = try self.assemble([base.map(Self.fixtures.appendingPathComponent), own], description)
        defer { try? FileManager.default.removeItem(at: folder) }
        var inspector = CheckpointInspector(folder: folder.path, overrides: description.overrides ?? [:], pools: 2)
        if name.hasPrefix("adapters/") { inspector.adapter = folder.appendingPathComponent("adapter").path }
        let report = inspector.report()
        guard let words = description.refused, !Self.foundByReading.contains(name) else {
            #expect(report.problems.isEmpty, "\(report.problems)")
            #expect(report.fingerprint != nil && report.shape != nil && !report.memory.isEmpty)
            return
        }
        let text = report.problems.joined(separator: "\n")
        #expect(!text.isEmpty)
        for word in words { #expect(text.contains(word), "no \"\(word)\" in: \(text)") }
    }

    /// Puts a fixture's folder together from a base and what differs from it.
    private func assemble(_ sources: [URL?], _ description: Case) throws -> URL {
        let files = FileManager.default
        let folder = files.temporaryDirectory.appendingPathComponent("inspect-\(UUID().uuidString)")
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        for source in sources.compactMap(\.self) {
            for file in try files.contentsOfDirectory(atPath: source.path)
            where file != "case.json" && file != "merged.safetensors" && description.without?.contains(file) != true {
                let target = folder.appendingPathComponent(file)
                try? files.removeItem(at: target)
                try files.copyItem(at: source.appendingPathComponent(file), to: target)
            }
        }
        return folder
    }
}
