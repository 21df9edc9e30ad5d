// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import TensorKernels

@testable import SwitchModel

/// What transformers makes of every generation parameter; `make_generation_rule_fixtures.py` writes it.
struct GenerationRuleFixtures: Decodable {
    /// A model, a request and what transformers answered.
    struct Case: Decodable, CustomStringConvertible {
        var table: UInt64
        var vocabulary: Int
        var start: Int32
        var prefix: [Int32]
        var ends: [Int32]
        var pad: Int32?
        var endBias: Float
        var settings: Settings

        /// Of a search: the sequences.
        var results: [Outcome]?

        /// Of sampling: how probable each token is in the first place.
        var probabilities: [Double]?

        /// Of a beam search with sampling: what came out how often.
        var outcomes: [Outcome]?

        var description: String { "table \(self.table), prefix \(self.prefix), ends \(self.ends), \(self.settings)" }
    }

    struct Outcome: Decodable {
        var ids: [Int32]
        var score: Float
        var count: Int?
    }

    /// The parameters by transformers' names.
    struct Settings: Decodable {
        struct Bias: Decodable {
            var tokens: [Int32]
            var bias: Float
        }

        struct Decay: Decodable {
            var start: Int
            var factor: Float
        }

        /// One token or several.
        struct Tokens: Decodable {
            var values: [Int32]

            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                self.values =
                    if let one = try? container.decode(Int32.self) { [one] } else {
                        try container.decode([Int32].self)
                    }
            }
        }

        var maxNewTokens: Int
        var minNewTokens: Int?
        var numBeams: Int?
        var numBeamGroups: Int?
        var diversityPenalty: Float?
        var numReturnSequences: Int?
        var lengthPenalty: Float?
        var earlyStopping: String?
        var doSample: Bool?
        var temperature: Float?
        var topK: Int?
        var topP: Float?
        var minP: Float?
        var typicalP: Float?
        var epsilonCutoff: Float?
        var etaCutoff: Float?
        var repetitionPenalty: Float?
        var encoderRepetitionPenalty: Float?
        var noRepeatNgramSize: Int?
        var encoderNoRepeatNgramSize: Int?
        var badWordsIds: [[Int32]]?
        var suppressTokens: [Int32]?
        var beginSuppressTokens: [Int32]?
        var forcedBosTokenId: Int32?
        var forcedEosTokenId: Tokens?
        var sequenceBias: [Bias]?
        var lengthDecay: Decay?
        var renormalizeLogits: Bool?
    }

    var searches: [Case]
    var distributions: [Case]
    var draws: [Case]

    /// The fixtures, read once.
    static let shared = Result {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appending(path: "Fixtures/generation-rules.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Self.self, from: Data(contentsOf: file))
    }
}

extension GenerationRuleFixtures {
    /// Searches with groups of beams, out of transformers 4.55; `make_group_beam_fixtures.py` writes them.
    static let groupBeams = Result {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appending(path: "Fixtures/group-beams.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode([Case].self, from: Data(contentsOf: file))
    }
}

extension GenerationRuleFixtures.Settings {
    var parameters: GenerationParameters {
        var parameters = GenerationParameters()
        func set<Value>(_ path: WritableKeyPath<GenerationParameters, Value>, _ value: Value?) {
            if let value { parameters[keyPath: path] = value }
        }
        set(\.maxNewTokens, self.maxNewTokens)
        set(\.minNewTokens, self.minNewTokens)
        set(\.beamCount, self.numBeams)
        set(\.beamGroups, self.numBeamGroups)
        set(\.diversityPenalty, self.diversityPenalty)
        set(\.returnedSequences, self.numReturnSequences)
        set(\.lengthPenalty, self.lengthPenalty)
        set(\.earlyStopping, self.earlyStopping.map { ["always": .always, "never": .never][$0] ?? .heuristic })
        set(\.sampling, self.doSample)
        set(\.temperature, self.temperature)
        set(\.topK, self.topK)
        set(\.topP, self.topP)
        parameters.minP = self.minP
        set(\.typicalP, self.typicalP)
        set(\.epsilonCutoff, self.epsilonCutoff)
        set(\.etaCutoff, self.etaCutoff)
        set(\.repetitionPenalty, self.repetitionPenalty)
        set(\.encoderRepetitionPenalty, self.encoderRepetitionPenalty)
        set(\.noRepeatNgramSize, self.noRepeatNgramSize)
        set(\.encoderNoRepeatNgramSize, self.encoderNoRepeatNgramSize)
        set(\.badWords, self.badWordsIds)
        set(\.suppressedTokens, self.suppressTokens)
        set(\.beginSuppressedTokens, self.beginSuppressTokens)
        parameters.forcedBeginToken = self.forcedBosTokenId
        set(\.forcedEndTokens, self.forcedEosTokenId?.values)
        set(\.sequenceBias, self.sequenceBias?.map { SequenceBias(tokens: $0.tokens, bias: $0.bias) })
        parameters.lengthDecay = self.lengthDecay.map { LengthDecay(startIndex: $0.start, factor: $0.factor) }
        set(\.renormalizesLogits, self.renormalizeLogits)
        return parameters
    }
}

extension GenerationRuleFixtures.Case {
    /// The encoder's input, `ENCODER` in `make_generation_rule_fixtures.py`.
    var encoderTokens: [Int32] {
        [5, 6, 9, 5, 6, 12, 3, 1].filter { $0 < self.vocabulary }
    }

    var session: GenerationSession {
        get throws { try self.session(self.settings.parameters) }
    }

    func session(_ parameters: GenerationParameters) throws -> GenerationSession {
        var vocabulary = GenerationVocabulary(
            size: self.vocabulary,
            startTokenID: self.start,
            endTokenIDs: self.ends
        )
        vocabulary.padTokenID = self.pad
        return try GenerationSession(
            parameters: parameters,
            vocabulary: vocabulary,
            encoderTokens: self.encoderTokens,
            decoderPrefix: self.prefix
        )
    }

    var scores: ScoreTable { ScoreTable(seed: self.table, vocabulary: self.vocabulary, endBias: self.endBias) }

    /// The first step's scores.
    var firstRow: [Float] { self.scores.row(step: self.prefix.count, last: self.prefix.last ?? self.start) }

    /// Runs a session to its end.
    func run(_ session: inout GenerationSession) -> [GeneratedSequence] {
        var step = 0
        while !session.isFinished {
            let tokens = step == 0 ? [self.prefix.last ?? self.start] : session.nextTokens
            let logits = self.scores.logits(step: step + self.prefix.count, tokens: tokens)
            _ = session.advance(logits: logits, firstRow: 0)
            step += 1
            precondition(step <= session.parameters.maxNewTokens, "a session without an end")
        }
        return session.results
    }
}
