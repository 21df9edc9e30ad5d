// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchModel
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import switchyard

/// Clusters whose processes keep weights in different types.
@Suite("Precision by choice", .serialized)
struct PrecisionTests {
    @Test("A float32 gateway, packed bfloat16 hosts and bfloat16 rows: answers, and what runs where in the status")
    func mixedChoices() async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.runProcesses(
            pools: 2,
            gatewayArguments: ["--dtype", "float32", "--wire-dtype", "bfloat16"],
            hostArguments: ["--dtype", "bfloat16", "--prefault"],
            packing: .bfloat16
        ) { cluster in
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                var same = 0
                for prompt in prompts {
                    let request = GenerateRequest(input: .text(prompt.prompt), dropPolicy: DropPolicy(strict: true))
                    let response = try await client.generate(request)
                    same += response.generations.first?.tokenIDs == prompt.tokenIDs ? 1 : 0
                }
                // The weights are those of the checkpoint; rounded rows may turn a choice between two likely tokens.
                #expect(same >= prompts.count - 1)
                let model = try await client.describeModel()
                #expect(model.weightDType == .float32)
                let description = try await client.describeCluster()
                #expect(description.rowDType == .bfloat16)
                let replicas = description.pools.flatMap(\.replicas)
                #expect(replicas.map(\.weightDType) == [.bfloat16, .bfloat16])
                let hosts = try await Self.descriptions(cluster)
                #expect(hosts.map(\.modelFingerprint) == [model.fingerprint, model.fingerprint])
            }
            let status = try await Commands.run(
                TestCluster.executable,
                ["status", "--endpoint", cluster.gatewayAddress]
            )
            #expect(status.status == 0, "\(status.errors)")
            #expect(status.text.contains("weights float32"))
            #expect(status.text.contains("rows sent in bfloat16"))
            let lines = status.text.split(separator: "\n").filter { $0.hasPrefix("pool-") && $0.contains("ready") }
            #expect(lines.count == 2)
            #expect(lines.allSatisfy { $0.contains("bfloat16") }, "\(status.text)")
        }
    }

    private static func descriptions(_ cluster: LocalCluster) async throws -> [HostDescription] {
        var descriptions: [HostDescription] = []
        for host in cluster.hosts.running {
            descriptions.append(try await withHostChannel(host) { try await $0.describeHost() })
        }
        return descriptions
    }

    /// Cuts the miniature into a temporary folder with the command, passes it to the body and removes it.
    private func withPackedShards(_ arguments: [String], body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-packed-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.path(percentEncoded: false)
        let output = try await Commands.run(
            TestCluster.executable,
            ["shard", TestCluster.miniature, "--out", path, "--pools", "1", "--packed"] + arguments
        )
        #expect(output.status == 0, "\(output.errors)")
        try await body(path)
    }

    /// Starts a host on a shard and stops it once it is up.
    ///
    /// - Returns: Why it did not come up; nil where it did.
    private func start(_ shard: String, _ arguments: [String]) async throws -> String? {
        let addressFile = "\(shard)/../host.address"
        let host = ChildSpecification(
            name: "host",
            arguments: [
                "expert-host", "--shard", shard, "--listen", "127.0.0.1:0", "--admin-listen", "off", "--threads", "2",
                "--exit-with-standard-input", "--address-file", addressFile,
            ] + arguments,
            addressFile: addressFile
        )
        do {
            try await ChildProcesses.run(
                [host],
                executable: TestCluster.executable,
                onExit: .fail,
                startTimeout: .seconds(300),
                events: { _ in },
                body: { _ in }
            )
            return nil
        } catch let error as ChildProcessError {
            return error.description
        }
    }

    @Test("A changed byte in a packed matrix is found before a host serves, if --prefault is given")
    func damage() async throws {
        try await self.withPackedShards(["--dtype", "float32"]) { folder in
            let path = "\(folder)/pool-0/model.safetensors"
            let file = try FileHandle(forUpdating: URL(filePath: path))
            // In the first matrix, between the samples that the fingerprint covers.
            let header = try #require(try file.read(upToCount: 8)).enumerated()
                .reduce(0) { $0 + UInt64($1.element) << (8 * UInt64($1.offset)) }
            try file.seek(toOffset: 8 + header + 5_000)
            let old = try #require(try file.read(upToCount: 1)?.first)
            try file.seek(toOffset: 8 + header + 5_000)
            try file.write(contentsOf: [old ^ 0x40])
            try file.close()
            let checked = try await self.start("\(folder)/pool-0", ["--prefault"])
            let complaint = try #require(checked)
            for part in [path, "tensor encoder.block.1", ".packed", "has the checksum", "manifest.json says"] {
                #expect(complaint.contains(part), "\(complaint)")
            }
            let unchecked = try await self.start("\(folder)/pool-0", [])
            #expect(unchecked == nil)
        }
    }

    @Test("A host with a --dtype other than its packed shard's does not start, and names both")
    func contradiction() async throws {
        try await self.withPackedShards(["--dtype", "bfloat16"]) { folder in
            let output = try await self.start("\(folder)/pool-0", ["--dtype", "float32"])
            let complaint = try #require(output)
            #expect(complaint.contains("packed in bfloat16, but float32 was requested"), "\(complaint)")
            // A folder of packed shards is not reused for unpacked ones.
            #expect(throws: ChildProcessError.self) {
                try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 1, folder: folder)
            }
            let again = try ShardWorkspace.prepare(
                model: TestCluster.miniature,
                pools: 1,
                folder: folder,
                packing: .bfloat16
            )
            #expect(again.folder == folder)
        }
    }
}
