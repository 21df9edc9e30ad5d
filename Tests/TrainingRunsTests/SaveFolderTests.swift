// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import TrainingRuns

@Suite("Saves of a run")
struct SaveFolderTests {
    private let root = NSTemporaryDirectory() + "save-folder-\(UUID().uuidString)"

    private func folder() throws -> SaveFolder {
        let folder = SaveFolder(self.root)
        try folder.prepare()
        return folder
    }

    private func write(_ text: String) -> (String) throws -> Void {
        { directory in try text.write(toFile: "\(directory)/model.txt", atomically: false, encoding: .utf8) }
    }

    private func names() throws -> Set<String> {
        Set(try FileManager.default.contentsOfDirectory(atPath: self.root))
    }

    @Test(
        "Only a save's own name is one",
        arguments: [
            ("step-00000200", 200), ("step-123456789", 123_456_789), ("step-00000000", 0), ("step-200", nil),
            ("step-0000020a", nil), ("step-000000200", nil), (".step-00000200.partial-7", nil), ("step--0000001", nil),
            ("latest", nil), ("step-99999999999999999999", nil),
        ] as [(String, Int?)]
    )
    func names(_ name: String, _ step: Int?) {
        #expect(SaveFolder.step(name) == step)
        if let step { #expect(SaveFolder.name(step) == name) }
    }

    @Test("A save gets its name when it is whole, and the link follows")
    func whole() throws {
        let folder = try self.folder()
        defer { try? FileManager.default.removeItem(atPath: self.root) }
        let first = try folder.save(step: 10, byteCount: 100, write: self.write("ten"))
        #expect(first.path == self.root + "/step-00000010")
        _ = try folder.save(step: 20, byteCount: 100, write: self.write("twenty"))
        #expect(folder.saves().map(\.step) == [10, 20])
        #expect(try String(contentsOfFile: "\(self.root)/latest/model.txt", encoding: .utf8) == "twenty")
        #expect(try self.names() == ["step-00000010", "step-00000020", "latest"])
    }

    @Test("A save that fails leaves nothing behind and everything before it as it was")
    func failure() throws {
        let folder = try self.folder()
        defer { try? FileManager.default.removeItem(atPath: self.root) }
        _ = try folder.save(step: 10, byteCount: 100, write: self.write("ten"))
        let error = #expect(throws: RunError.self) {
            _ = try folder.save(step: 20, byteCount: 100) { directory in
                try self.write("half")(directory)
                throw RunError("No space left on device")
            }
        }
        #expect(error?.description.contains("No space left on device") == true)
        #expect(error?.description.contains("step 20") == true)
        #expect(try self.names() == ["step-00000010", "latest"])
        #expect(try String(contentsOfFile: "\(self.root)/latest/model.txt", encoding: .utf8) == "ten")
    }

    @Test("A disk that is too small is found before anything is written")
    func noSpace() throws {
        let folder = try self.folder()
        defer { try? FileManager.default.removeItem(atPath: self.root) }
        let error = #expect(throws: RunError.self) {
            _ = try folder.save(step: 1, byteCount: .max) { _ in Issue.record("something was written") }
        }
        #expect(error?.description.contains("\(Int.max) bytes") == true)
        #expect(try self.names().isEmpty)
    }

    @Test("A run neither mixes with an earlier one nor resumes from nothing")
    func prepare() throws {
        let folder = try self.folder()
        defer { try? FileManager.default.removeItem(atPath: self.root) }
        #expect(throws: RunError.self) { _ = try folder.last(resumes: true) }
        _ = try folder.save(step: 7, byteCount: 1, write: self.write("seven"))
        #expect(throws: RunError.self) { _ = try folder.last(resumes: false) }
        // What a killed run left half written is removed, and never taken for a save.
        try FileManager.default.createDirectory(
            atPath: "\(self.root)/.step-00000009.partial-1",
            withIntermediateDirectories: true
        )
        #expect(try folder.last(resumes: true)?.step == 7)
        try folder.prepare()
        #expect(try self.names() == ["step-00000007", "latest"])
    }

    @Test("Old saves go, the newest and the best stay")
    func trim() throws {
        let folder = try self.folder()
        defer { try? FileManager.default.removeItem(atPath: self.root) }
        for step in 1...6 { _ = try folder.save(step: step, byteCount: 1, write: self.write("\(step)")) }
        folder.trim(keeping: 2, and: 3)
        #expect(folder.saves().map(\.step) == [3, 5, 6])
        folder.trim(keeping: 0)
        #expect(folder.saves().map(\.step) == [6])
    }
}
