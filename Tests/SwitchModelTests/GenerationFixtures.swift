// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import TensorKernels

/// What transformers makes of scores that a formula gives; `make_generation_fixtures.py` writes it.
struct GenerationFixtures: Decodable {
    /// One call of `generate()` and its results.
    struct Search: Decodable, Sendable, CustomStringConvertible {
        struct Result: Decodable {
            var ids: [Int32]
            var logprobs: [Float]
            var score: Float?
        }

        var table: UInt64
        var vocabulary: Int
        var start: Int32
        var endBias: Float
        var endFrom: Int
        var maxNewTokens: Int
        var minNewTokens: Int
        var numBeams: Int
        var lengthPenalty: Float
        var earlyStopping: String
        var repetitionPenalty: Float
        var numReturnSequences: Int
        var results: [Result]

        var description: String {
            """
            table \(self.table), \(self.numBeams) beams, penalty \(self.lengthPenalty), \(self.earlyStopping), \
            end \(self.endBias) from \(self.endFrom), \(self.minNewTokens)...\(self.maxNewTokens) tokens, \
            repetition \(self.repetitionPenalty)
            """
        }

        var parameters: GenerationParameters {
            var parameters = GenerationParameters()
            parameters.maxNewTokens = self.maxNewTokens
            parameters.minNewTokens = self.minNewTokens
            parameters.beamCount = self.numBeams
            parameters.lengthPenalty = self.lengthPenalty
            parameters.earlyStopping =
                ["heuristic": .heuristic, "always": .always, "never": .never][self.earlyStopping] ?? .heuristic
            parameters.repetitionPenalty = self.repetitionPenalty
            parameters.returnedSequences = self.numReturnSequences
            return parameters
        }

        var scores: ScoreTable {
            ScoreTable(seed: self.table, vocabulary: self.vocabulary, endBias: self.endBias, endFrom: self.endFrom)
        }
    }

    /// The tokens that transformers' processors leave, and their scores.
    struct Filter: Decodable {
        var table: UInt64
        var vocabulary: Int
        var temperature: Float
        var topK: Int
        var topP: Float
        var ids: [Int32]
        var scores: [Float]
    }

    var searches: [Search]
    var filters: [Filter]

    /// The fixtures, read once.
    static let shared = Result {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appending(path: "Fixtures/generation.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Self.self, from: Data(contentsOf: file))
    }
}

/// A model that is a formula: scores depend on the step and the last token alone.
struct ScoreTable {
    var seed: UInt64
    var vocabulary: Int
    var endBias: Float = 0
    var endFrom = 0

    static let endTokenID: Int32 = 1

    /// The scores after `last`, as `scores` in `make_generation_fixtures.py` computes them.
    func row(step: Int, last: Int32) -> [Float] {
        (0..<self.vocabulary)
            .map { token in
                var mixed = (self.seed &* 1_000_003 &+ UInt64(step)) &* 1_000_003 &+ UInt64(last)
                mixed = (mixed &* 1_000_003 &+ UInt64(token) &+ 1) &* 0x9E37_79B9_7F4A_7C15
                mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
                mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
                mixed ^= mixed >> 31
                let score = Float(mixed >> 40) / 2_097_152 - 4
                return token == Int(Self.endTokenID) && step >= self.endFrom ? score + self.endBias : score
            }
    }

    /// The logits of one step, with `firstRow` rows in front that no one may read.
    func logits(step: Int, tokens: [Int32], firstRow: Int = 0) -> FloatMatrix {
        let matrix = FloatMatrix(rows: firstRow + tokens.count, columns: self.vocabulary)
        for row in 0..<firstRow {
            matrix.row(row).update(repeating: .nan)
        }
        for (row, token) in tokens.enumerated() {
            _ = matrix.row(firstRow + row).update(fromContentsOf: self.row(step: step, last: token))
        }
        return matrix
    }

    /// Runs a session to its end and checks on the way that its rows continue one another.
    func run(_ session: inout GenerationSession, firstRow: Int = 0) -> [GenerationSession.Advance] {
        var advances: [GenerationSession.Advance] = []
        var step = 0
        while !session.isFinished {
            let tokens = session.nextTokens
            precondition(!tokens.isEmpty && tokens.count == session.rowCount, "a session that goes on without rows")
            let logits = self.logits(step: step, tokens: tokens, firstRow: firstRow)
            let advance = session.advance(logits: logits, firstRow: firstRow)
            precondition(advance.parents == session.parents && advance.parents.count == session.rowCount)
            precondition(advance.parents.allSatisfy(tokens.indices.contains))
            advances.append(advance)
            step += 1
            precondition(step <= session.parameters.maxNewTokens, "a session without an end")
        }
        return advances
    }
}

extension FloatMatrix {
    /// A matrix of rows given one by one.
    convenience init(_ rows: [[Float]]) {
        self.init(rows: rows.count, columns: rows[0].count)
        for (index, row) in rows.enumerated() {
            _ = self.row(index).update(fromContentsOf: row)
        }
    }
}
