// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

/// Whole generations against transformers: encode, cached decode and search together.
@Suite struct ParityGenerationTests {
    @Test(arguments: ParityFixture.generations)
    func generationMatches(model: String, generation: String) throws {
        let fixture = try ParityFixture(model)
        let goldens = try #require(fixture.goldens.generations.first { $0.name == generation })
        let generator = PlainGenerator(model: fixture.model, experts: fixture.experts)
        let parameters = GenerationParameters(goldens.parameters)
        #expect(goldens.results.count == fixture.goldens.prompts.count)
        for (index, (prompt, golden)) in zip(fixture.goldens.prompts, goldens.results).enumerated() {
            var record = RoutingRecord()
            let results = try generator.generate(prompt.ids, parameters: parameters, record: &record)
            #expect(results.map(\.tokenIDs) == golden.map(\.ids), "prompt \(index)")
            for (result, golden) in zip(results, golden) {
                guard let score = golden.score else { continue }
                #expect(abs(Double(result.score) - score) <= 1e-4 * max(1, abs(score)), "prompt \(index)")
            }
        }
    }

    @Test(arguments: ParityFixture.models)
    func everyGenerationIsCompared(model: String) throws {
        let compared = ParityFixture.generations.filter { $0.model == model }.map(\.generation)
        #expect(try ParityFixture(model).goldens.generations.map(\.name) == compared)
    }

    /// The full shape of switch-base-8, which is too large to ship: Tests/Fixtures/make_full_shape.py makes it.
    @Test(.enabled(if: FullShape.directory != nil, "SWITCHYARD_FULL_SHAPE names no checkpoint"))
    func fullShapeMatches() throws {
        let directory = try #require(FullShape.directory)
        let expected = try FullShape(directory: directory)
        let checkpoint = try Checkpoint.open(directory)
        let pool = WorkPool(threads: 2)
        let generator = PlainGenerator(
            model: try SwitchTransformer(checkpoint: checkpoint, pool: pool),
            experts: try LocalExperts(checkpoint: checkpoint, pool: pool)
        )
        var parameters = GenerationParameters()
        parameters.maxNewTokens = expected.maxNewTokens
        #expect(!expected.prompts.isEmpty)
        for prompt in expected.prompts {
            var record = RoutingRecord()
            let results = try generator.generate(prompt.inputIds, parameters: parameters, record: &record)
            #expect(results.map(\.tokenIDs) == [prompt.tokenIds])
            #expect(record.droppedCount == prompt.dropped)
        }
    }
}

/// The file `expected.json` next to a full-shape checkpoint.
private struct FullShape: Decodable {
    struct Prompt: Decodable {
        var inputIds: [Int32]
        var tokenIds: [Int32]
        var dropped: Int
    }

    var maxNewTokens: Int
    var prompts: [Prompt]

    static var directory: String? {
        ProcessInfo.processInfo.environment["SWITCHYARD_FULL_SHAPE"]
    }

    init(directory: String) throws {
        let file = URL(fileURLWithPath: directory).appendingPathComponent("expected.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(FullShape.self, from: Data(contentsOf: file))
    }
}

extension GenerationParameters {
    /// Translates transformers' names; what is not given has the same default there and here.
    fileprivate init(_ parameters: ParityGoldens.Parameters) {
        self.init()
        self.maxNewTokens = parameters.maxNewTokens
        self.minNewTokens = parameters.minNewTokens ?? self.minNewTokens
        self.beamCount = parameters.numBeams ?? self.beamCount
        self.lengthPenalty = parameters.lengthPenalty ?? self.lengthPenalty
        self.returnedSequences = parameters.numReturnSequences ?? self.returnedSequences
        self.repetitionPenalty = parameters.repetitionPenalty ?? self.repetitionPenalty
        switch parameters.earlyStopping {
        case .true: self.earlyStopping = .always
        case .false: self.earlyStopping = .heuristic
        case .never: self.earlyStopping = .never
        case nil: break
        }
    }
}
