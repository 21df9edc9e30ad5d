// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import RPCCore
import SwitchyardProtos
import Testing
import Tokenization

@testable import GatewayServing

/// Models without a tokenizer, and models with a smaller vocabulary than their tokenizer.
@Suite("Models and their tokenizers")
struct TextlessModelTests {
    /// A copy of the miniature without some files.
    private func copy(without names: Set<String>) throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("textless-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let source = URL(fileURLWithPath: TestModel.miniature.directory)
        for file in ["config.json", "generation_config.json", "model.safetensors", "spiece.model"]
        where !names.contains(file) {
            try FileManager.default.copyItem(
                at: source.appendingPathComponent(file),
                to: folder.appendingPathComponent(file)
            )
        }
        return folder
    }

    @Test("a model without a tokenizer answers ids and refuses text by name")
    func withoutTokenizer() async throws {
        let folder = try self.copy(without: ["spiece.model"])
        defer { try? FileManager.default.removeItem(at: folder) }
        let gateway = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: folder.path),
            logger: quietLogger
        )
        try await gateway.whileRunning {
            var request = GenerateRequest(input: .tokenIDs([158, 54, 2_047, 1]), parameters: .init())
            request.parameters?.maxNewTokens = 4
            let response = try await gateway.generate(request)
            #expect(response.generations.first?.tokenIDs.isEmpty == false)
            #expect(response.generations.first?.text == "")

            request.input = .text("Now is the winter")
            let error = await #expect(throws: RPCError.self) { _ = try await gateway.generate(request) }
            #expect(error?.code == .invalidArgument)
            #expect(error?.message.contains("has no tokenizer and takes ids only; set input_ids") == true)
        }
    }

    @Test("a text that needs an id beyond the vocabulary is refused with the token and the limit")
    func smallVocabulary() throws {
        var model = try ModelConfiguration.load(directory: TestModel.miniature.directory)
        model.vocabularySize = 1_948
        let reader = RequestReader(
            tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
            model: model,
            limits: RequestLimits(),
            batchSlots: 1
        )
        #expect(try reader.encode(EncodeRequest(input: .text("Now is the winter")), deadline: nil).input.last == 1)
        let error = #expect(throws: RPCError.self) {
            try reader.encode(EncodeRequest(input: .text("Now <extra_id_0>")), deadline: nil)
        }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("text contains \"<extra_id_0>\", whose id is 2047") == true)
        #expect(error?.message.contains("ends at 1947") == true)
    }
}
