// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

@testable import Checkpoints

@Suite struct WeightWatchTests {
    private func model() throws -> (folder: TemporaryFolder, path: String, watch: WeightWatch) {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder)
        let watch = WeightWatch([try Checkpoint.open(folder.path)], isCompared: false)
        return (folder, "\(folder.path)/model.safetensors", watch)
    }

    /// Writes into the file that is there.
    private func overwrite(_ path: String, at offset: UInt64, with bytes: [UInt8]) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: Data(bytes))
        try handle.close()
    }

    @Test func filesThatStayAreQuiet() throws {
        let (folder, path, watch) = try self.model()
        #expect(watch.paths == [path])
        _ = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect(watch.look().isEmpty)
        #expect(watch.failure == nil)
        withExtendedLifetime(folder) {}
    }

    @Test func oneByteWrittenIsNoticedAndStays() throws {
        let (folder, path, watch) = try self.model()
        try self.overwrite(path, at: 900, with: [0x7F])
        // The clock of a file system has ticks; the test sets the time rather than waiting for the next.
        try FileManager.default.setAttributes(
            [.modificationDate: Date(timeIntervalSince1970: 1_000_000_000)],
            ofItemAtPath: path
        )
        #expect(watch.look().isEmpty)
        #expect(watch.failure?.contains(path) == true)
        #expect(watch.failure?.contains("was written to") == true)
        #expect(watch.look().isEmpty)
        #expect(watch.failure != nil)
        withExtendedLifetime(folder) {}
    }

    @Test(arguments: [0, 5_000_000])
    func anotherLengthIsNoticed(length: UInt64) throws {
        let (folder, path, watch) = try self.model()
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: length)
        try handle.close()
        _ = watch.look()
        #expect(watch.failure?.contains("and now has \(length)") == true)
        withExtendedLifetime(folder) {}
    }

    @Test func aFileReplacedByRenamingIsNoDanger() throws {
        let (folder, path, watch) = try self.model()
        try folder.write("another file", to: "next")
        #expect(rename("\(folder.path)/next", path) == 0)
        let notes = watch.look()
        #expect(notes.count == 1 && notes[0].contains("was replaced"))
        #expect(watch.look().isEmpty)
        #expect(watch.failure == nil)
    }

    @Test func linksAndModesAreNoDanger() throws {
        let (folder, path, watch) = try self.model()
        #expect(link(path, "\(folder.path)/backup") == 0)
        #expect(watch.look().isEmpty)
        #expect(chmod(path, 0o600) == 0)
        #expect(watch.look().isEmpty)
        #expect(watch.failure == nil)
        // The states that these left are the ones that later looks compare with.
        try self.overwrite(path, at: 0, with: Array(repeating: 0, count: 3_000_000))
        _ = watch.look()
        #expect(watch.failure != nil)
    }

    @Test func everyKindOfChangeIsTold() throws {
        let (folder, path, _) = try self.model()
        let before = try #require(FileState(path: path))
        #expect(before.change(to: before) == .none)
        #expect(before.change(to: nil) == .replaced)
        func changed(_ body: (inout FileState) -> Void) -> FileState.Change {
            var now = before
            body(&now)
            return before.change(to: now)
        }
        #expect(changed { $0.inode += 1 } == .replaced)
        #expect(changed { $0.device += 1 } == .replaced)
        #expect(
            changed { $0.byteCount -= 1 }
                == .content("it had \(before.byteCount) bytes, and now has \(before.byteCount - 1)")
        )
        #expect(changed { $0.modified += 1 } == .content("it was written to"))
        #expect(changed { $0.modified -= 1 } == .content("it was written to"))
        #expect(changed { $0.changed += 1 } == .content("it was written to, and its time set back"))
        for body: (inout FileState) -> Void in [
            { $0.links += 1 }, { $0.mode ^= 1 }, { $0.owner += 1 }, { $0.group += 1 },
        ] {
            #expect(
                changed {
                    $0.changed += 1
                    body(&$0)
                } == .attributes
            )
            #expect(
                changed {
                    $0.modified += 1
                    body(&$0)
                } != .attributes
            )
        }
        withExtendedLifetime(folder) {}
    }

    @Test func aServiceWhoseWeightsChangeEndsWithAnError() async throws {
        let (folder, path, watch) = try self.model()
        let (stopped, stop) = AsyncStream.makeStream(of: Never.self)
        let failures = Mutex<[String]>([])
        try self.overwrite(path, at: 0, with: Array(repeating: 1, count: 3_000_000))
        let error = await #expect(throws: CheckpointError.self) {
            try await watch.during(every: .milliseconds(1)) { _ in
            } onCompared: { _ in
            } onFailure: { text in
                failures.withLock { $0.append(text) }
                stop.finish()
            } _: {
                for await _ in stopped {}
            }
        }
        #expect(error?.code == .fingerprintMismatch)
        #expect(failures.withLock { $0.count } == 1)
        withExtendedLifetime(folder) {}
    }

    @Test func aServiceThatEndsEndsTheWatch() async throws {
        let (folder, _, watch) = try self.model()
        try await watch.during(every: .seconds(3600)) { _ in
        } onCompared: { _ in
        } onFailure: { _ in
            Issue.record("no change")
        } _: {
        }
        struct Failed: Error {}
        await #expect(throws: Failed.self) {
            try await watch.during(every: .seconds(3600)) { _ in
            } onCompared: { _ in
            } onFailure: { _ in
            } _: {
                throw Failed()
            }
        }
        withExtendedLifetime(folder) {}
    }
}
