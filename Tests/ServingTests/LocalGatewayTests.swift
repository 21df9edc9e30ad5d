// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import GatewayServing
import RPCCore
import SwitchyardProtos
import Testing

@Suite("A gateway in this process")
struct LocalGatewayTests {
    private static func gateway(_ directory: String) throws -> LocalGateway {
        try LocalGateway(configuration: LocalGatewayConfiguration(modelDirectory: directory), logger: quietLogger)
    }

    @Test("streams each token once, and ends at a stop text as a gateway does")
    func streams() async throws {
        let prompt = try Prompt.all()[0]
        let gateway = try Self.gateway(TestModel.miniature.directory)
        var request = GenerateRequest(input: .text(prompt.prompt), parameters: .init())
        request.parameters?.stop = ["<extra_id_1>"]
        var tokens: [GeneratedToken] = []
        let response = try await gateway.whileRunning { try await gateway.generate(request) { tokens.append($0) } }
        #expect(tokens.map(\.tokenID) == Array(prompt.tokenIDs.prefix(3)))
        #expect(tokens.map(\.text).joined() == "<extra_id_0> discontent")
        #expect(response.generations.map(\.text) == ["<extra_id_0> discontent"])
        #expect(response.generations.map(\.finishReason) == [.stop])
    }

    @Test("refuses what a gateway refuses, and gives up at its timeout")
    func refuses() async throws {
        let gateway = try Self.gateway(TestModel.miniature.directory)
        try await gateway.whileRunning {
            let wrong = await rpcError { _ = try await gateway.generate(GenerateRequest()) }
            #expect(wrong?.code == .invalidArgument)
            let late = await rpcError {
                _ = try await gateway.generate(GenerateRequest(input: .text("Now")), timeout: .zero)
            }
            #expect(late?.code == .deadlineExceeded)
        }
    }

    @Test("takes lengths and widths beyond a gateway's limits")
    func limits() async throws {
        let gateway = try Self.gateway(TestModel.miniature.directory)
        var request = GenerateRequest(input: .tokenIDs([5, 1]), parameters: .init())
        request.parameters?.maxNewTokens = 1_025
        // The text ends long before.
        request.parameters?.stop = ["a", "e", "i", "o", "u", "<"]
        var wide = GenerateRequest(input: .tokenIDs([5, 1]), parameters: .init())
        wide.parameters?.numBeams = 33
        wide.parameters?.numReturnSequences = 33
        wide.parameters?.maxNewTokens = 2
        try await gateway.whileRunning {
            let long = try await gateway.generate(request)
            #expect(long.generations.count == 1)
            #expect(long.generations.first?.finishReason != .length)
            #expect(try await gateway.generate(wide).generations.count == 33)
        }
    }

    @Test("refuses a part of a model", arguments: ["gateway", "pool-1"])
    func parts(name: String) throws {
        let folder = try ShardCache.folder(of: .miniature, pools: 2)
        let error = #expect(throws: GatewayError.self) { try Self.gateway("\(folder)/\(name)") }
        #expect(error?.code == .checkpoint)
        for word in ["\(folder)/\(name)/manifest.json", "this is part \(name)", "pass the whole checkpoint"] {
            #expect(error?.message.contains(word) == true, "\(error?.message ?? "no error") lacks \(word)")
        }
    }

    @Test("refuses a checkpoint that lacks experts")
    func incomplete() throws {
        let folder = try ShardCache.folder(of: .miniature, pools: 2)
        let copy = FileManager.default.temporaryDirectory.appending(path: "switchyard-incomplete-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: copy) }
        try FileManager.default.copyItem(at: URL(filePath: "\(folder)/gateway"), to: copy)
        try FileManager.default.removeItem(at: copy.appending(path: "manifest.json"))
        let error = #expect(throws: CheckpointError.self) { try Self.gateway(copy.path(percentEncoded: false)) }
        #expect(error?.code == .missingTensor)
        #expect(error?.tensor == "encoder.block.1.layer.1.mlp.experts.expert_0.wi.weight")
    }
}
