// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

@Suite("switchyard shard", .serialized)
struct ShardCommandTests {
    @Test("shard --keep succeeds if its work is done, and never replaces another cut")
    func keptShards() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kept-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        func cut(_ pools: Int, _ more: [String] = []) async throws -> Commands.Output {
            let arguments = ["shard", TestCluster.miniature, "--out", folder, "--keep", "--pools", "\(pools)"]
            return try await Commands.run(TestCluster.executable, arguments + more)
        }
        func age() throws -> Date? {
            let file = "\(folder)/placement.json"
            return try FileManager.default.attributesOfItem(atPath: file)[.modificationDate] as? Date
        }
        let first = try await cut(2)
        #expect(first.status == 0, "\(first.errors)")
        let written = try #require(try age())
        let again = try await cut(2)
        #expect(again.status == 0, "\(again.errors)")
        #expect(again.text.contains("keeping it"))
        for (pools, more, part) in [
            (3, [], "2 shards"), (2, ["--packed"], "not packed"),
            (2, ["--override", "expert_capacity=9"], "overrides"),
        ] {
            let other = try await cut(pools, more)
            #expect(other.status == 1)
            #expect(other.errors.contains(part), "\(other.errors)")
        }
        #expect(try age() == written)
    }

    @Test("what services would refuse at their start is refused before anything is written")
    func refusedEarly() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("early-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let cut = try await Commands.run(
            TestCluster.executable,
            ["shard", TestCluster.miniature, "--out", folder, "--pools", "1", "--override", "router_dtype=bfloat16"]
        )
        #expect(cut.status == 1)
        #expect(cut.errors.contains("router_dtype is bfloat16"), "\(cut.errors)")
        #expect(!FileManager.default.fileExists(atPath: folder))
    }

    @Test("the line that it prints for a host is one that a host starts with")
    func nextLine() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("next-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let cut = try await Commands.run(
            TestCluster.executable,
            ["shard", TestCluster.miniature, "--out", folder, "--pools", "2"]
        )
        #expect(cut.status == 0, "\(cut.errors)")
        let command = try #require(cut.text.firstMatch(of: /Next, .*:  switchyard expert-host (.*)/)?.1)
        let arguments = command.split(separator: " ").map(String.init)
        let check = try await Commands.run(
            TestCluster.executable,
            ["config", "expert-host", "--check"] + arguments
        )
        #expect(check.status == 0, "\(check.errors)")
    }
}
