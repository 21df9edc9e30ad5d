// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import CommandKit
@testable import switchyard

@Suite("When children are restarted")
struct ChildRestartsTests {
    @Test("a child that reports that it cannot start is not restarted")
    func configurationError() {
        var restarts = ChildRestarts()
        #expect(restarts.left(readyFor: nil, isExit: true) == .giveUp)
    }

    @Test("a child ended by a signal before it was ready gets a few more tries, further and further apart")
    func killedEarly() {
        var restarts = ChildRestarts()
        let decisions = (0..<9).map { _ in restarts.left(readyFor: nil, isExit: false) }
        let pauses = [1, 2, 4, 8, 16, 30, 30, 30].map { ChildRestarts.Decision.restart(after: .seconds($0)) }
        #expect(decisions == pauses + [.giveUp])
    }

    @Test("a child that was ready may exit with any status, and one that stayed up starts with a clean record")
    func steady() {
        var restarts = ChildRestarts()
        #expect(restarts.left(readyFor: .seconds(1), isExit: true) == .restart(after: .seconds(1)))
        #expect(restarts.left(readyFor: nil, isExit: true) == .restart(after: .seconds(2)))
        #expect(restarts.left(readyFor: .seconds(29), isExit: true) == .restart(after: .seconds(4)))
        #expect(restarts.left(readyFor: .seconds(30), isExit: false) == .restart(after: .seconds(1)))
        for _ in 0..<ChildRestarts.limit { _ = restarts.left(readyFor: .seconds(1), isExit: true) }
        #expect(restarts.left(readyFor: .seconds(1), isExit: true) == .giveUp)
        #expect(restarts.left(readyFor: .seconds(31), isExit: true) == .restart(after: .seconds(1)))
    }
}

@Suite("Temporary folders")
struct ScratchFolderTests {
    /// A folder to make scratch folders in.
    private func inParent(_ body: (String) throws -> Void) throws {
        let parent = FileManager.default.temporaryDirectory.appendingPathComponent("scratch-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: parent) }
        try body(parent)
    }

    private func names(_ parent: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: parent).sorted()
    }

    @Test("a folder exists until it is removed, and leaves nothing behind")
    func removed() throws {
        try self.inParent { parent in
            let folder = try ScratchFolder(in: parent)
            try Data("x".utf8).write(to: URL(fileURLWithPath: "\(folder.path)/file"))
            #expect(try self.names(parent).count == 2)
            folder.remove()
            #expect(try self.names(parent).isEmpty)
        }
    }

    @Test("another start keeps a running process's folder, and removes a killed process's")
    func abandoned() throws {
        try self.inParent { parent in
            let alive = try ScratchFolder(in: parent)
            let dead = "\(parent)/switchyard-dead"
            try FileManager.default.createDirectory(atPath: "\(dead)/shards", withIntermediateDirectories: true)
            // The system has freed the lock of a process that is gone.
            try Data().write(to: URL(fileURLWithPath: "\(dead).lock"))
            // A folder without a lock file is not one of these.
            try FileManager.default.createDirectory(
                atPath: "\(parent)/switchyard-other",
                withIntermediateDirectories: true
            )
            let next = try ScratchFolder(in: parent)
            let left = try self.names(parent)
            #expect(FileManager.default.fileExists(atPath: alive.path))
            #expect(FileManager.default.fileExists(atPath: next.path))
            #expect(!left.contains { $0.hasPrefix("switchyard-dead") }, "\(left)")
            #expect(left.contains("switchyard-other"))
            alive.remove()
            next.remove()
        }
    }
}
