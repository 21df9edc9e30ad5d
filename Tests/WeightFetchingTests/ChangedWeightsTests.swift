// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import Subprocess
import SystemPackage
import Testing

@testable import WeightFetching

/// Real processes whose mapped weight files another program writes into.
@Suite("Weights that change while they are served", .serialized)
struct ChangedWeightsTests {
    private static let listening = ["--listen", "127.0.0.1:0", "--threads", "1", "--admin-listen", "off"]

    private func run(
        _ arguments: [String],
        _ place: Workplace,
        when text: String,
        _ body: @escaping @Sendable (Int32) throws -> Void
    ) async throws -> (log: String, status: TerminationStatus) {
        try await self.run(arguments, place, steps: [(text, body)])
    }

    /// Runs a service until it ends; calls each closure in turn with its process identifier once its line appears.
    private func run(
        _ arguments: [String],
        _ place: Workplace,
        steps: [(text: String, body: @Sendable (Int32) throws -> Void)]
    ) async throws -> (log: String, status: TerminationStatus) {
        let result = try await Subprocess.run(
            .path(FilePath(Workplace.executable)),
            arguments: Arguments(arguments + Self.listening),
            environment: place.environment([:]),
            input: .none,
            output: .discarded,
            error: .sequence
        ) { execution in
            var log = ""
            var steps = steps[...]
            for try await line in execution.standardError.strings() {
                log += line + "\n"
                if let step = steps.first, line.contains(step.text) {
                    steps.removeFirst()
                    try step.body(execution.processIdentifier.value)
                }
            }
            return log
        }
        return (result.closureResult, result.terminationStatus)
    }

    private func shards(_ place: Workplace) async throws -> String {
        let folder = "\(place.path)/shards"
        let output = try await place.switchyard([
            "shard", Workplace.miniature, "--out", folder, "--pools", "1", "--packed",
        ])
        #expect(output.status == 0, "\(output.errors)")
        return folder
    }

    private func overwrite(_ path: String, at offset: UInt64) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: Data(repeating: 0x3F, count: 4096))
        try handle.close()
    }

    @Test("a packed host whose file is overwritten logs that, stops answering and ends with an error")
    func host() async throws {
        try await Workplace.with { place in
            let folder = try await self.shards(place)
            let file = "\(folder)/pool-0/model.safetensors"
            let (log, status) = try await self.run(
                ["expert-host", "--shard", "\(folder)/pool-0"],
                place,
                when: "serving experts"
            ) { _ in try self.overwrite(file, at: 100_000) }
            #expect(status == .exited(1), "\(log)")
            #expect(log.contains("the weights changed while they were served"), "\(log)")
            #expect(log.contains(file), "\(log)")
        }
    }

    @Test("a gateway whose file is replaced in place does so too, even while it waits for its hosts")
    func gateway() async throws {
        try await Workplace.with { place in
            let folder = try await self.shards(place)
            let file = "\(folder)/gateway/model.safetensors"
            let (log, status) = try await self.run(
                [
                    "gateway", "--model", "\(folder)/gateway", "--pool", "pool-0=127.0.0.1:1", "--startup-wait-seconds",
                    "1",
                ],
                place,
                when: "some experts have no verified host"
            ) { _ in try self.overwrite(file, at: 200_000) }
            #expect(status == .exited(1), "\(log)")
            #expect(log.contains("the weights changed while they were served"), "\(log)")
            #expect(log.contains(file), "\(log)")
        }
    }

    @Test("a file that is replaced by renaming is served on, with a line")
    func renamed() async throws {
        try await Workplace.with { place in
            let folder = try await self.shards(place)
            let file = "\(folder)/pool-0/model.safetensors"
            let (log, status) = try await self.run(
                ["expert-host", "--shard", "\(folder)/pool-0"],
                place,
                steps: [
                    (
                        "serving experts",
                        { _ in
                            try FileManager.default.copyItem(atPath: file, toPath: file + ".new")
                            #expect(rename(file + ".new", file) == 0)
                        }
                    ),
                    ("was replaced or removed", { _ = kill($0, SIGTERM) }),
                ]
            )
            #expect(status.isSuccess, "\(log)")
            #expect(!log.contains("changed while they were served"), "\(log)")
        }
    }

    @Test("SIGBUS is not a silent death")
    func fault() async throws {
        try await Workplace.with { place in
            let folder = try await self.shards(place)
            let (log, status) = try await self.run(
                ["expert-host", "--shard", "\(folder)/pool-0"],
                place,
                when: "serving experts"
            ) { process in _ = kill(process, SIGBUS) }
            #expect(status == .exited(70), "\(log)")
            #expect(log.contains("SIGBUS"), "\(log)")
            #expect(log.contains("\(folder)/pool-0"), "\(log)")
        }
    }
}
