// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import TrainingData
import TrainingRuns

/// What `switchyard evaluate` prints.
struct EvaluationFigures {
    /// Loss and token accuracy.
    let loss: RunReport
    /// How close generated answers are; nil where none were generated.
    var texts: TextMeasures?

    /// Figures without generated answers.
    ///
    /// - Parameter loss: Loss and token accuracy.
    init(_ loss: RunReport) {
        self.loss = loss
    }

    /// The figures as a table, with each sparse layer's balance.
    var text: String {
        var rows = [
            ("cross-entropy", String(format: "%.4f nats per token", self.loss.crossEntropy)),
            ("perplexity", String(format: "%.3f", exp(self.loss.crossEntropy))),
            ("token accuracy", Self.percent(self.loss.accuracy ?? 0)),
        ]
        if let dropped = self.loss.dropped { rows.append(("dropped tokens", Self.percent(dropped))) }
        if let texts {
            rows += [
                ("exact match", Self.percent(texts.exactMatch)), ("word error rate", Self.percent(texts.words.rate)),
                ("character error rate", Self.percent(texts.characters.rate)),
                ("ROUGE-L", String(format: "%.4f", texts.rouge.mean)), ("answers", "\(texts.count)"),
            ]
        }
        if let lines = self.loss.unusableLines, lines > 0 { rows.append(("lines that could not be used", "\(lines)")) }
        var table = TextTable([("measure", .left), ("value", .right)])
        for row in rows { table.add([row.0, row.1]) }
        return ([table.text] + RunLine.balance(self.loss.layers)).joined(separator: "\n")
    }

    private struct Encoded: Encodable {
        var crossEntropy: Double
        var perplexity: Double
        var tokenAccuracy: Double?
        var dropped: Double?
        var unusableLines: Int?
        var answers: Int?
        var exactMatch: Double?
        var wordErrorRate: Double?
        var characterErrorRate: Double?
        var rougeL: Double?

        enum CodingKeys: String, CodingKey {
            case crossEntropy = "cross_entropy"
            case perplexity
            case tokenAccuracy = "token_accuracy"
            case dropped
            case unusableLines = "unusable_lines"
            case answers
            case exactMatch = "exact_match"
            case wordErrorRate = "word_error_rate"
            case characterErrorRate = "character_error_rate"
            case rougeL = "rouge_l"
        }
    }

    /// The figures as a JSON object.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        let encoded = Encoded(
            crossEntropy: self.loss.crossEntropy,
            perplexity: exp(self.loss.crossEntropy),
            tokenAccuracy: self.loss.accuracy,
            dropped: self.loss.dropped,
            unusableLines: self.loss.unusableLines,
            answers: self.texts?.count,
            exactMatch: self.texts?.exactMatch,
            wordErrorRate: self.texts?.words.rate,
            characterErrorRate: self.texts?.characters.rate,
            rougeL: self.texts?.rouge.mean
        )
        return String(decoding: try encoder.encode(encoded), as: UTF8.self)
    }

    private static func percent(_ share: Double) -> String { String(format: "%.2f %%", share * 100) }
}
