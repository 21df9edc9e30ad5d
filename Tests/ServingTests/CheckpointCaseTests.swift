// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardProtos
import Testing

@testable import GatewayServing

/// Checkpoints as people bring them, from `Tests/Fixtures/make_checkpoint_cases.py`: each is answered as transformers
/// answers, or refused when it is loaded, in words that name what is wrong.
@Suite("Checkpoint cases")
struct CheckpointCaseTests {
    /// A case's `case.json`.
    struct Case: Decodable {
        /// One request's parameters, by transformers' names, and the answer to each prompt.
        struct Answers: Decodable {
            var request: Request
            var ids: [[UInt32]]
        }

        // swift-format-ignore: AlwaysUseLowerCamelCase
        /// The parameters that the cases use.
        struct Request: Decodable {
            var numBeams: UInt32?
            var maxNewTokens: UInt32?
            var doSample: Bool?
            var lengthPenalty: Float?
        }

        /// What an encoder gives for a prompt, `[tokens, d_model]`.
        struct Hidden: Decodable {
            var prompt: [Int32]
            var states: [Float]
        }

        var about: String
        var without: [String]
        var prompts: [[UInt32]]?
        var answers: [Answers]?
        var overrides: [String: String]?
        var hidden: Hidden?
        /// Words that the error must have.
        var refused: [String]?
    }

    static let cases = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/cases")

    static let names = ((try? FileManager.default.contentsOfDirectory(atPath: cases.path)) ?? []).sorted()

    /// Reads a case's `case.json`.
    static func description(_ folder: URL) throws -> Case {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Case.self, from: Data(contentsOf: folder.appendingPathComponent("case.json")))
    }

    /// Puts a case's folder together: the plain checkpoint's files, replaced or completed by the case's own.
    static func assemble(_ own: URL, _ description: Case) throws -> URL {
        let files = FileManager.default
        let folder = files.temporaryDirectory.appendingPathComponent("case-\(UUID().uuidString)")
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        for source in [Self.cases.appendingPathComponent("plain"), own] {
            for file in try files.contentsOfDirectory(atPath: source.path)
            where file != "case.json" && !description.without.contains(file) {
                let target = folder.appendingPathComponent(file)
                try? files.removeItem(at: target)
                try files.copyItem(at: source.appendingPathComponent(file), to: target)
            }
        }
        return folder
    }

    @Test("there are cases")
    func present() {
        #expect(Self.names.count >= 40)
    }

    @Test("a checkpoint gives transformers' answers, or is refused in words", arguments: names)
    func answers(name: String) async throws {
        let own = Self.cases.appendingPathComponent(name)
        let description = try Self.description(own)
        let folder = try Self.assemble(own, description)
        defer { try? FileManager.default.removeItem(at: folder) }
        let configuration = Self.configuration(folder, description)
        if let words = description.refused {
            let error = #expect(throws: (any Error).self) {
                _ = try LocalGateway(configuration: configuration, logger: quietLogger)
            }
            let text = error.map { "\($0)" } ?? ""
            for word in words { #expect(text.contains(word), "no \"\(word)\" in: \(text)") }
            return
        }
        if let hidden = description.hidden {
            try await self.checkEncoder(configuration, hidden)
            return
        }
        try await Self.checkAnswers(configuration, description)
    }

    /// Compares a model's answers with a case's.
    static func checkAnswers(_ configuration: LocalGatewayConfiguration, _ description: Case) async throws {
        let prompts = try #require(description.prompts)
        let gateway = try LocalGateway(configuration: configuration, logger: quietLogger)
        try await gateway.whileRunning {
            for answers in try #require(description.answers) {
                for (prompt, ids) in zip(prompts, answers.ids) {
                    let request = GenerateRequest(
                        input: .tokenIDs(prompt),
                        parameters: Self.parameters(answers.request)
                    )
                    let response = try await gateway.generate(request)
                    #expect(response.generations.first?.tokenIDs == ids, "\(description.about): \(prompt)")
                }
            }
        }
    }

    static func configuration(_ folder: URL, _ description: Case) -> LocalGatewayConfiguration {
        var configuration = LocalGatewayConfiguration(modelDirectory: folder.path)
        configuration.modelOverrides = description.overrides ?? [:]
        return configuration
    }

    private static func parameters(_ request: Case.Request) -> GenerationParameters {
        var parameters = GenerationParameters()
        if let value = request.numBeams { parameters.numBeams = value }
        if let value = request.maxNewTokens { parameters.maxNewTokens = value }
        if let value = request.doSample { parameters.doSample = value }
        if let value = request.lengthPenalty { parameters.lengthPenalty = value }
        return parameters
    }
}
