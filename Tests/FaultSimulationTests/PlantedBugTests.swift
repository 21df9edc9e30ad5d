// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// The list that `make planted-bugs` compiles and looks for.
@Suite("planted bugs")
struct PlantedBugTests {
    private struct Bug: Decodable {
        var file: String
        var kind: String
        var what: String
        var original: String
        var changed: String
    }

    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test("each of at least fifty still fits its file, so that a change of a machine takes its bugs along")
    func fit() throws {
        let list = Self.root.appending(path: "Tests/planted-bugs/bugs.json")
        let bugs = try JSONDecoder().decode([Bug].self, from: Data(contentsOf: list))
        #expect(bugs.count >= 50)
        #expect(Set(bugs.map(\.what)).count == bugs.count)
        for bug in bugs {
            let text = try String(contentsOf: Self.root.appending(path: bug.file), encoding: .utf8)
            let count = text.components(separatedBy: bug.original).count - 1
            #expect(count == 1, "\(bug.what): its text occurs \(count) times in \(bug.file)")
            #expect(bug.original != bug.changed)
            #expect(bug.kind != "raw" || bug.changed.contains("PLANTED"), "\(bug.what) is never active")
        }
    }
}
