// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardProtos
import TensorKernels
import Testing

@testable import GatewayServing

/// Checkpoints in each layout of T5, from `Tests/Fixtures/make_dense_cases.py`: each is answered as transformers
/// answers, greedily and with beams, or refused when it is loaded, in words that name what is wrong.
@Suite("Dense cases")
struct DenseCaseTests {
    /// A case's `case.json`.
    struct Case: Decodable {
        var about: String
        /// The folder that has the files which the case lacks, but for those of `without`.
        var base: String?
        var without: [String]?
        var overrides: [String: String]?
        var prompts: [[UInt32]]?
        /// The ids of greedy search for each prompt.
        var greedy: [[UInt32]]?
        /// The best beam's ids for each prompt, and its score.
        var beams: [[UInt32]]?
        var scores: [Float]?
        /// The logits of the first step for each prompt.
        var logits: [[Float]]?
        var hidden: CheckpointCaseTests.Case.Hidden?
        /// Words that the error must have.
        var refused: [String]?
    }

    static let cases = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/dense")

    static let names = ((try? FileManager.default.contentsOfDirectory(atPath: cases.path)) ?? []).sorted()

    /// How many prompts are asked for at once: they share steps, as requests of several callers do.
    static let together = 16

    /// Puts a case's folder together: the base's files, replaced or completed by the case's own.
    private func assemble(_ name: String, _ description: Case) throws -> URL {
        let files = FileManager.default
        let folder = files.temporaryDirectory.appendingPathComponent("dense-\(UUID().uuidString)")
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        for source in [description.base, name].compactMap(\.self).map(Self.cases.appendingPathComponent) {
            for file in try files.contentsOfDirectory(atPath: source.path)
            where file != "case.json" && description.without?.contains(file) != true {
                let target = folder.appendingPathComponent(file)
                try? files.removeItem(at: target)
                try files.copyItem(at: source.appendingPathComponent(file), to: target)
            }
        }
        return folder
    }

    @Test("every layout has its 200 prompts")
    func present() throws {
        for name in ["t5", "t5-v1_1", "flan-t5", "monot5", "madlad", "mt5"] {
            #expect(try self.describe(name).prompts?.count == 200)
        }
    }

    @Test("a checkpoint gives transformers' answers, or is refused in words", arguments: names)
    func answers(name: String) async throws {
        let description = try self.describe(name)
        let folder = try self.assemble(name, description)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = LocalGatewayConfiguration(modelDirectory: folder.path)
        configuration.modelOverrides = description.overrides ?? [:]
        if let words = description.refused {
            let error = #expect(throws: (any Error).self) {
                _ = try LocalGateway(configuration: configuration, logger: quietLogger)
            }
            let text = error.map { "\($0)" } ?? ""
            for word in words { #expect(text.contains(word), "no \"\(word)\" in: \(text)") }
            return
        }
        if let hidden = description.hidden {
            try await CheckpointCaseTests().checkEncoder(configuration, hidden)
            return
        }
        let gateway = try LocalGateway(configuration: configuration, logger: quietLogger)
        try await gateway.whileRunning {
            try await self.checkAnswers(description, gateway)
        }
        try self.checkLogits(description, configuration)
    }

    private func describe(_ name: String) throws -> Case {
        try JSONDecoder()
            .decode(
                Case.self,
                from: Data(contentsOf: Self.cases.appendingPathComponent("\(name)/case.json"))
            )
    }

    /// Compares the ids of every prompt, and the scores of the best beams.
    private func checkAnswers(_ description: Case, _ gateway: LocalGateway) async throws {
        let prompts = try #require(description.prompts)
        let greedy = try #require(description.greedy)
        let beams = try #require(description.beams)
        let scores = try #require(description.scores)
        try #require([greedy.count, beams.count, scores.count] == Array(repeating: prompts.count, count: 3))
        for start in stride(from: 0, to: prompts.count, by: Self.together) {
            let part = start..<min(start + Self.together, prompts.count)
            let found = try await Self.generate(gateway, Array(prompts[part]), beams: 1)
            for (index, generation) in zip(part, found) {
                #expect(generation.tokenIDs == greedy[index], "\(description.about): \(prompts[index])")
            }
            let best = try await Self.generate(gateway, Array(prompts[part]), beams: 4)
            for (index, generation) in zip(part, best) {
                #expect(generation.tokenIDs == beams[index], "\(description.about), beams: \(prompts[index])")
                #expect(abs(generation.score - scores[index]) < 1e-4, "\(description.about), beams: \(prompts[index])")
            }
        }
    }

    /// Compares the logits of the first step, where the case has them.
    private func checkLogits(_ description: Case, _ configuration: LocalGatewayConfiguration) throws {
        guard let prompts = description.prompts, let wanted = description.logits else { return }
        let checkpoint = try Checkpoint.open(configuration.modelDirectory, overrides: configuration.modelOverrides)
        let pool = WorkPool(threads: 1)
        let model = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
        let experts = try LocalExperts(checkpoint: checkpoint, pool: pool)
        var record = RoutingRecord()
        let inputs = prompts.map { $0.map { Int32(bitPattern: $0) } }
        let rows = try model.encode(inputs, experts: experts, record: &record)
            .map {
                DecoderInput(cache: DecoderCache($0), tokens: [0])
            }
        let logits = try model.decode(rows, experts: experts, record: &record)
        try #require(logits.rows == wanted.count)
        for (index, expected) in wanted.enumerated() {
            let found = Array(logits.row(index))
            #expect(found.count == expected.count)
            #expect(zip(found, expected).allSatisfy { abs($0 - $1) < 2e-4 }, "the logits of \(prompts[index])")
        }
    }

    /// Asks for all prompts at once.
    private static func generate(
        _ gateway: LocalGateway,
        _ prompts: [[UInt32]],
        beams: UInt32
    ) async throws -> [Generation] {
        try await withThrowingTaskGroup(of: (Int, Generation).self) { group in
            for (index, prompt) in prompts.enumerated() {
                group.addTask {
                    var request = GenerateRequest(input: .tokenIDs(prompt), parameters: .init())
                    request.parameters?.maxNewTokens = 12
                    request.parameters?.numBeams = beams
                    let response = try await gateway.generate(request)
                    return (index, try #require(response.generations.first))
                }
            }
            var found: [(Int, Generation)] = []
            for try await row in group { found.append(row) }
            return found.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }
}
