// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import RPCCore
import SwitchyardProtos
import Telemetry
import Testing

@testable import GatewayServing

/// A gateway whose mapped weight file another program writes into.
@Suite(.serialized)
struct WeightChangeTests {
    @Test("Once a mapped file is overwritten no call is answered, and the gateway ends with an error")
    func overwritten() async throws {
        let prompt = try Prompt.all()[0]
        let model = TestModel.miniature
        let folder = FileManager.default.temporaryDirectory.appending(path: "weight-change-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let part = try ShardCache.folder(of: model, pools: 1) + "/gateway"
        try FileManager.default.copyItem(at: URL(fileURLWithPath: part), to: folder)
        let request = GenerateRequest(input: .text(prompt.prompt))
        try await withHosts(model, pools: 1) { _, pools in
            try await withGateway(pools, modelDirectory: folder.path(percentEncoded: false)) { gateway, channel in
                let response = try await channel.generate(request)
                #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)

                let handle = try FileHandle(forUpdating: folder.appending(path: "model.safetensors"))
                try handle.seek(toOffset: 300_000)
                try handle.write(contentsOf: Data(repeating: 0x3E, count: 8192))
                try handle.close()
                _ = gateway.weights.look()
                #expect(gateway.weights.failure?.contains("model.safetensors") == true)
                let error = await rpcError { _ = try await channel.generate(request) }
                #expect(error?.code == .unavailable)
                #expect(await eventually { gateway.gate.phase == .draining })
                #expect(!gateway.readiness.isReady)
            }
        }
    }
}
