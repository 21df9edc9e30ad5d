// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ExpertTraining
import Foundation
import Testing

@testable import switchyard

@Suite("switchyard train with its log in files", .serialized)
struct TrainLogTests {
    /// A log that outgrows its memory within a step, and that no state shortens.
    private static func flags(_ folder: String, fileBytes: Int = 1 << 28) -> [String] {
        [
            "--log-dir", "\(folder)/log", "--log-bytes", "1048576", "--log-file-bytes", "\(fileBytes)", "--save-every",
            "100", "--snapshot-every", "1000",
        ]
    }

    private static func isInFiles(_ status: TrainingStatus) -> Bool {
        status.shards.contains { $0.logFileBytes > 1 << 20 }
    }

    /// Cuts the log's files, which have no names, in half.
    private static func tear(_ folder: String, of process: Int32) throws {
        let links = "/proc/\(process)/fd"
        var torn = 0
        for name in try FileManager.default.contentsOfDirectory(atPath: links) {
            let link = "\(links)/\(name)"
            guard let file = try? FileManager.default.destinationOfSymbolicLink(atPath: link),
                file.hasPrefix("\(folder)/log/"), let handle = FileHandle(forUpdatingAtPath: link)
            else { continue }
            let size = try handle.seekToEnd()
            try handle.truncate(atOffset: size / 2)
            try handle.close()
            torn += 1
        }
        #expect(torn > 0, "the trainer has no file in \(folder)/log")
    }

    @Test("A new host repeats the log from files to the same bits, and the folder is empty at all times")
    func repeated() async throws {
        let run = try await ShardRun(examples: 48)
        try await withTrainingHosts(pools: 2, replicas: 1) { flags, hosts in
            async let result = run.train("files", flags, Self.flags(run.folder))
            _ = try await run.status(of: "files") { Self.isInFiles($0) && $0.step >= 3 }
            #expect(try FileManager.default.contentsOfDirectory(atPath: "\(run.folder)/log").isEmpty)
            try await killHost("pool-0/0", hosts)
            try run.expectSame("files", try await result)
            let status = try TrainingStatus(of: "\(run.folder)/files")
            #expect(status.state == .ended && status.step == 8)
            let recovery = try #require(status.shards[0].recoveries.last)
            #expect(recovery.step == 0 && recovery.steps >= 3 && recovery.calls > 10, "\(recovery)")
            #expect(recovery.replaySeconds > 0 && recovery.firstCallsSeconds > 0 && recovery.loadSeconds > 0)
        }
    }

    @Test("Files that are full leave the log in memory, and states are kept earlier, to the same bits")
    func full() async throws {
        let run = try await ShardRun(examples: 48)
        try await withTrainingHosts(pools: 1, replicas: 1) { flags, _ in
            let result = try await run.train("full", flags, Self.flags(run.folder, fileBytes: 1 << 20))
            try run.expectSame("full", result)
            let shard = try #require(try TrainingStatus(of: "\(run.folder)/full").shards.first)
            #expect(shard.keptStep > 0, "\(shard)")
            #expect(shard.logBytes <= 4 << 20, "\(shard)")
        }
    }

    @Test(
        "Torn files are found: a replica gives its state, and a host without one ends the run in words, which goes on"
    )
    func torn() async throws {
        let run = try await ShardRun(examples: 48)
        try await withTrainingHosts(pools: 1, replicas: 2) { flags, hosts in
            async let result = run.train("torn", flags, Self.flags(run.folder))
            let status = try await run.status(of: "torn") { Self.isInFiles($0) && $0.step >= 2 }
            try Self.tear(run.folder, of: try #require(status).process)
            try await killHost("pool-0/1", hosts)
            try run.expectSame("torn", try await result)
        }
        try await withTrainingHosts(pools: 1, replicas: 1) { flags, hosts in
            let more = Self.flags(run.folder) + ["--save-every", "4"]
            async let result = run.train("lost", flags, more)
            // A save empties the log, which then grows by half a mebibyte a step; the status is written once a second.
            let status = try await run.status(of: "lost") { status in
                status.savedStep != nil && status.shards.contains { $0.logFileBytes > 1 << 18 }
            }
            try Self.tear(run.folder, of: try #require(status).process)
            try await killHost("pool-0/0", hosts)
            let lost = try await result
            #expect(lost.status != 0 && lost.errors.contains("was lost of the log"), "\(lost.errors)")
            #expect(lost.errors.contains("--resume"), "\(lost.errors)")
            let end = try TrainingStatus(of: "\(run.folder)/lost")
            #expect(end.state == .failed && end.reason?.contains("was lost of the log") == true, "\(end)")
            try run.expectSame("lost", try await run.train("lost", flags, more + ["--resume"]))
        }
    }

    @Test("Settings of files that do not fit are refused in words")
    func refusals() async throws {
        let run = try await ShardRun()
        let file = "\(run.folder)/data.tsv"
        for (more, words) in [
            (["--log-file-bytes", "2000000"], "name their folder with --log-dir"),
            (["--log-dir", file], "the folder for the log, \(file)"),
            (["--experts", "frozen", "--log-dir", "x"], "log-dir is for experts that are trained"),
        ] {
            let result = try await run.train("refused", ["pool-0=127.0.0.1:1"], more)
            #expect(result.status != 0 && result.errors.contains(words), "\(more): \(result.errors)")
        }
        let alone = ShardRun.arguments(run.folder, "refused") + ["--log-dir", "x"]
        let result = try await Commands.run(TestCluster.executable, alone)
        #expect(result.status != 0 && result.errors.contains("log-dir is for experts on hosts"), "\(result.errors)")
    }
}
