// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import TrainingData

@Suite("Evaluation measures")
struct MeasureTests {
    private struct Golden: Decodable {
        struct Pair: Decodable {
            var prediction: String
            var reference: String
            var rougeL: Double
            var cer: Double
            var wer: Double
        }

        var pairs: [Pair]
        var cer: Double
        var wer: Double
    }

    private func isClose(_ first: Double, _ second: Double) -> Bool { abs(first - second) <= 1e-12 }

    @Test("are those of rouge_score and jiwer")
    func references() throws {
        let golden = try Support.fixture(Golden.self, "measures")
        #expect(golden.pairs.count > 10)
        var all = TextMeasures()
        for pair in golden.pairs {
            var one = TextMeasures()
            one.add(prediction: pair.prediction, reference: pair.reference)
            all.add(prediction: pair.prediction, reference: pair.reference)
            #expect(self.isClose(one.rouge.mean, pair.rougeL), "ROUGE-L of \(pair): \(one.rouge.mean)")
            #expect(self.isClose(one.characters.rate, pair.cer), "CER of \(pair): \(one.characters.rate)")
            #expect(self.isClose(one.words.rate, pair.wer), "WER of \(pair): \(one.words.rate)")
        }
        #expect(self.isClose(all.characters.rate, golden.cer))
        #expect(self.isClose(all.words.rate, golden.wer))
        let mean = golden.pairs.map(\.rougeL).reduce(0, +) / Double(golden.pairs.count)
        #expect(self.isClose(all.rouge.mean, mean))
    }

    @Test("exact match compares scalars, not what looks alike")
    func exactMatch() {
        var measures = TextMeasures()
        measures.add(prediction: "Cafe\u{301}", reference: "Caf\u{e9}")
        measures.add(prediction: "caf\u{e9}", reference: "caf\u{e9}")
        measures.add(prediction: "a", reference: "A")
        measures.add(prediction: "", reference: "")
        #expect(measures.equal == 2)
        #expect(measures.exactMatch == 0.5)
    }

    @Test(
        "edit distances are symmetric and known",
        arguments: [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2)]
    )
    func distances(first: String, second: String, distance: Int) {
        #expect(EditDistance.between(Array(first), Array(second)) == distance)
        #expect(EditDistance.between(Array(second), Array(first)) == distance)
    }

    @Test("a rate without anything expected is 0 or infinite")
    func nothingExpected() {
        var rate = ErrorRate(.words)
        #expect(rate.rate == 0)
        rate.add(prediction: "one word", reference: " ")
        #expect(rate.edits == 2)
        #expect(rate.rate == .infinity)
    }

    @Test("token accuracy, loss and perplexity add up in any split")
    func tokens() {
        // torch.nn.functional.cross_entropy of the logits [2, 1, 0] for the classes 0, 1 and 2 (torch 2.13, float64).
        let losses = [0.4076059644443804, 1.4076059644443804, 2.4076059644443806]
        var whole = TokenMeasures()
        whole.add(predicted: [0, 0, 0], target: [0, 1, 2], lossSum: losses.reduce(0, +))
        var parts = TokenMeasures()
        for (target, loss) in losses.enumerated() {
            var part = TokenMeasures()
            part.add(predicted: [0], target: [Int32(target)], lossSum: loss)
            parts.add(part)
        }
        #expect(whole.tokens == 3 && whole.correct == 1)
        #expect(self.isClose(whole.accuracy, 1 / 3))
        #expect(self.isClose(whole.loss, 1.4076059644443804))
        #expect(abs(whole.perplexity - 4.086161269630488) < 1e-12)
        #expect(parts.tokens == whole.tokens && parts.correct == whole.correct)
        #expect(self.isClose(parts.loss, whole.loss))
        #expect(TokenMeasures().loss == 0)
        var vast = TokenMeasures()
        vast.add(predicted: [1], target: [2], lossSum: 1e6)
        #expect(vast.perplexity == .infinity)
    }
}
