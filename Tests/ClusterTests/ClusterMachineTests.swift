// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
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

@Suite("How long children may take to stop")
struct StopTimeoutTests {
    private func timeouts(_ environment: [String: String]) async throws -> [Duration] {
        var layout = LocalCluster.Layout(shards: "shards", pools: ["pool-0"])
        try await layout.readDrains(environment)
        let (hosts, gateway) = LocalCluster.settings(layout, executable: "switchyard", events: { _ in })
        return [hosts.stopTimeout, gateway.stopTimeout]
    }

    @Test("as long as each drains, and then some, whatever layer says so")
    func drains() async throws {
        let margin = ChildSettings.stopMargin
        #expect(margin > .seconds(5), "a service's own limit is its drain and five seconds")
        #expect(try await self.timeouts([:]) == [.seconds(20) + margin, .seconds(30) + margin])
        let drain = "SWITCHYARD_DRAIN_SECONDS"
        #expect(try await self.timeouts([drain: "3600"]) == Array(repeating: .seconds(3600) + margin, count: 2))
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("drains-\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: file) }
        try Data(#"{"drain-seconds": 600, "queue-limit": 7}"#.utf8).write(to: file)
        let config = "SWITCHYARD_CONFIG"
        #expect(try await self.timeouts([config: file.path]) == Array(repeating: .seconds(600) + margin, count: 2))
        #expect(
            try await self.timeouts([config: file.path, drain: "1"]) == Array(repeating: .seconds(1) + margin, count: 2)
        )
    }

    @Test("as long as any drain where the configuration is a pipe, which is left to the processes")
    func pipe() async throws {
        let pipe = FileManager.default.temporaryDirectory.appendingPathComponent("drains-\(UUID().uuidString)").path
        #expect(mkfifo(pipe, 0o600) == 0)
        defer { try? FileManager.default.removeItem(atPath: pipe) }
        let longest = LocalCluster.Layout.longestDrain + ChildSettings.stopMargin
        #expect(try await self.timeouts(["SWITCHYARD_CONFIG": pipe]) == [longest, longest])
        let short = Duration.seconds(2) + ChildSettings.stopMargin
        let environment = ["SWITCHYARD_CONFIG": pipe, "SWITCHYARD_DRAIN_SECONDS": "2"]
        #expect(try await self.timeouts(environment) == [short, short])
    }

    @Test("a drain that the processes would refuse is refused before they start")
    func refused() async throws {
        let error = await #expect(throws: Settings.Failure.self) {
            _ = try await self.timeouts(["SWITCHYARD_DRAIN_SECONDS": "3601"])
        }
        #expect(error?.description.contains("SWITCHYARD_DRAIN_SECONDS is") == true, "\(error?.description ?? "")")
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
