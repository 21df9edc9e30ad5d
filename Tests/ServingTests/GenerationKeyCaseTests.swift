// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import GatewayServing
import SwitchModel
import SwitchyardProtos
import Testing

/// What transformers answers under many `generation_config.json` files and arguments: see
/// `Tests/Fixtures/make_generation_keys.py`.
private struct KeyFixture<Answer: Decodable & Sendable>: Decodable, Sendable {
    struct Case: Decodable, Sendable {
        var name: String
        var place: String
        /// One for each prompt.
        var answers: [Answer]
        var call: Call

        enum CodingKeys: String, CodingKey {
            case name, answers, call
            case place = "in"
        }
    }

    var prompts: [[UInt32]]
    var cases: [Case]

    static func load(_ file: String) throws -> Self {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Self.self, from: keyFixture(file))
    }
}

/// The arguments of a call.
private struct Call: Decodable, Sendable {
    var numBeams: UInt32?
    var numBeamGroups: UInt32?
    var diversityPenalty: Float?
    var doSample: Bool?
    var lengthPenalty: Float?
    var earlyStopping: String?
    var minNewTokens: UInt32?
    var decoderInputIds: [UInt32]?
}

private func keyFixture(_ file: String) throws -> Data {
    try Data(contentsOf: URL(filePath: "\(TestModel.root)/Tests/Fixtures/\(file).json"))
}

/// The keys of a case's file as JSON.
private func keys(of index: Int, _ file: String) throws -> [String: Any] {
    let all = try JSONSerialization.jsonObject(with: keyFixture(file)) as? [String: Any]
    let cases = try #require(all?["cases"] as? [[String: Any]])
    return try #require(cases[index]["keys"] as? [String: Any])
}

@Suite("Generation's keys against transformers")
struct GenerationKeyCaseTests {
    /// A folder with the miniature's weights and a case's files.
    private func withModel<R>(
        _ keys: [String: Any],
        _ place: String,
        _ body: (String) async throws -> R
    ) async throws -> R {
        let folder = FileManager.default.temporaryDirectory.appending(path: "generation-keys-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let model = URL(filePath: TestModel.miniature.directory)
        for name in ["model.safetensors", "spiece.model"] {
            try FileManager.default.createSymbolicLink(
                at: folder.appending(path: name),
                withDestinationURL: model.appending(path: name)
            )
        }
        let config = try Data(contentsOf: model.appending(path: "config.json"))
        var object = try #require(try JSONSerialization.jsonObject(with: config) as? [String: Any])
        if place == "config" {
            object.merge(keys) { $1 }
        } else {
            try JSONSerialization.data(withJSONObject: keys)
                .write(to: folder.appending(path: "generation_config.json"))
        }
        try JSONSerialization.data(withJSONObject: object).write(to: folder.appending(path: "config.json"))
        return try await body(folder.path(percentEncoded: false))
    }

    private func request(_ ids: [UInt32], _ call: Call) throws -> GenerateRequest {
        var message = GenerationParametersMessage()
        message.numBeams = call.numBeams
        message.numBeamGroups = call.numBeamGroups
        message.diversityPenalty = call.diversityPenalty
        message.doSample = call.doSample
        message.lengthPenalty = call.lengthPenalty
        message.minNewTokens = call.minNewTokens
        if let stopping = call.earlyStopping {
            try #require(stopping == "never")
            message.earlyStopping = .never
        }
        return GenerateRequest(
            input: .tokenIDs(ids),
            parameters: message,
            decoderPrefix: call.decoderInputIds.map { .tokenIDs($0) }
        )
    }

    @Test("The same ids as transformers", arguments: 0..<45)
    func cases(index: Int) async throws {
        let fixture = try KeyFixture<[UInt32]>.load("generation-keys")
        try #require(fixture.cases.count == 45)
        let sample = fixture.cases[index]
        let keys = try keys(of: index, "generation-keys")
        let own = keys["do_sample"] as? Bool
        let samples = sample.call.doSample ?? own ?? false
        try await self.withModel(keys, sample.place) { directory in
            let gateway = try LocalGateway(
                configuration: LocalGatewayConfiguration(modelDirectory: directory),
                logger: quietLogger
            )
            try await gateway.whileRunning {
                for (prompt, answer) in zip(fixture.prompts, sample.answers) {
                    var streamed: [UInt32] = []
                    let request = try self.request(prompt, sample.call)
                    let response = try await gateway.generate(request) { streamed.append($0.tokenID) }
                    #expect(response.generations.first?.tokenIDs == answer, "\(sample.name)")
                    #expect(streamed.isEmpty || streamed == answer, "\(sample.name)")
                    #expect((response.seed != nil) == samples)
                }
            }
        }
    }

    @Test("The same ids as transformers 4.55 with groups of beams, every beam", arguments: 0..<7)
    func groups(index: Int) async throws {
        let fixture = try KeyFixture<[[UInt32]]>.load("generation-keys-groups")
        try #require(fixture.cases.count == 7)
        let sample = fixture.cases[index]
        try await self.withModel(keys(of: index, "generation-keys-groups"), sample.place) { directory in
            let gateway = try LocalGateway(
                configuration: LocalGatewayConfiguration(modelDirectory: directory),
                logger: quietLogger
            )
            try await gateway.whileRunning {
                for (prompt, answer) in zip(fixture.prompts, sample.answers) {
                    var request = try self.request(prompt, sample.call)
                    request.parameters?.numReturnSequences = UInt32(answer.count)
                    let response = try await gateway.generate(request)
                    #expect(response.generations.map(\.tokenIDs) == answer, "\(sample.name)")
                }
            }
        }
    }

    @Test("A drawn seed is returned, draws differ, and the seed repeats the answer")
    func seeds() async throws {
        let gateway = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: TestModel.miniature.directory),
            logger: quietLogger
        )
        var message = GenerationParametersMessage(maxNewTokens: 12, doSample: true, temperature: 4, topK: 0)
        let input = ModelInput.tokenIDs([5, 9, 1])
        try await gateway.whileRunning {
            let drawn = try await gateway.generate(GenerateRequest(input: input, parameters: message))
            let other = try await gateway.generate(GenerateRequest(input: input, parameters: message))
            #expect(drawn.seed != other.seed)
            #expect(drawn.generations != other.generations)
            message.seed = drawn.seed
            #expect(drawn.seed != nil)
            let again = try await gateway.generate(GenerateRequest(input: input, parameters: message))
            #expect(again.generations == drawn.generations)
            #expect(again.seed == drawn.seed)
        }
    }

    @Test("Text as a decoder prefix gives what its ids give")
    func prefixText() async throws {
        let gateway = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: TestModel.miniature.directory),
            logger: quietLogger
        )
        let prompt = try Prompt.all()[0].prompt
        try await gateway.whileRunning {
            let plain = try await gateway.generate(GenerateRequest(input: .text(prompt)))
            let ids = try #require(plain.generations.first?.tokenIDs)
            // The answer continues as it did when the model wrote its beginning itself.
            let rest = try await gateway.generate(
                GenerateRequest(input: .text(prompt), decoderPrefix: .tokenIDs(Array(ids.prefix(2))))
            )
            #expect(rest.generations.first?.tokenIDs == Array(ids.dropFirst(2)))
            let text = try await gateway.generate(
                GenerateRequest(input: .text(prompt), decoderPrefix: .text("<extra_id_0> discontent"))
            )
            let whole = (plain.generations.first?.text ?? "")
            #expect(whole.hasPrefix("<extra_id_0> discontent"))
            #expect(whole.hasSuffix(text.generations.first?.text ?? "?"))
            #expect(text.generations.first?.text.isEmpty == false)
        }
    }
}
