// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import TrainingRuns

@Suite("Reports of a run")
struct RunReportTests {
    private func report(_ step: Int, loss: Double = 2) -> RunReport {
        var report = RunReport(
            step: step,
            kind: .training,
            loss: loss,
            crossEntropy: loss - 0.01,
            seconds: Double(step),
            layers: [.init(layer: "encoder 1", shares: [0.5, 0.25, 0.25, 0], dropped: 0.125)]
        )
        report.balance = 1.25
        report.dropped = 0.125
        report.tokensPerSecond = 5210
        return report
    }

    @Test("A line is read back as it was written", arguments: [2, -0.0, 1e-300, .infinity])
    func line(_ loss: Double) {
        let report = self.report(3, loss: loss)
        #expect(!report.line.contains("\n"))
        #expect(RunReport(line: report.line) == report)
    }

    @Test("A run that resumes drops later lines and one that was cut off")
    func resume() throws {
        let path = NSTemporaryDirectory() + "metrics-\(UUID().uuidString).jsonl"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let first = try MetricsLog(path, resumingAfter: nil)
        for step in [10, 20, 30] { #expect(first.append(self.report(step))) }
        let text = try String(contentsOfFile: path, encoding: .utf8) + "{\"step\":40,\"lo"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        let second = try MetricsLog(path, resumingAfter: 20)
        #expect(second.append(self.report(30, loss: 1)))
        #expect(second.reports().map(\.step) == [10, 20, 30])
        #expect(second.reports().last?.loss == 1)
    }

    @Test("Bars show an even share in the middle, and an idle expert as a dot")
    func bars() {
        #expect(RunLine.bars([0.25, 0.25, 0.25, 0.25]) == "▅▅▅▅")
        #expect(RunLine.bars([0.5, 0.5, 0, 0]) == "██··")
        #expect(RunLine.bars([1, 0, 0, 0]) == "█···")
        #expect(RunLine.bars([]) == "")
        // Of two neighbours in one bar the larger shows.
        #expect(RunLine.bars([0, 0.25, 0.25, 0, 0, 0, 0.25, 0.25], columns: 4) == "██·█")
        #expect(RunLine.bars(Array(repeating: 1.0 / 2048, count: 2048), columns: 64).count == 64)
    }

    @Test("The live line tells step, loss, balance, dropped share, speed and the time left")
    func live() {
        #expect(
            RunLine.text(self.report(200, loss: 2.1374), of: 1000, secondsLeft: 130)
                == "step 200/1000  loss 2.1374  balance 1.250  dropped 12.5 %  5210 tokens/s  2 min left"
        )
        #expect(RunLine.text(self.report(7), of: nil, secondsLeft: nil).hasPrefix("step 7  loss 2.0000"))
        #expect(
            RunLine.balance(self.report(1).layers) == ["encoder 1  █▅▅·  most 2.00 x even, dropped 12.5 %"]
        )
    }

    @Test(
        "Times are for people",
        arguments: [
            (0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1 h 30 min"), (11_100, "3 h 05 min"),
        ]
            as [(Double, String)]
    )
    func times(_ seconds: Double, _ text: String) {
        #expect(RunLine.time(seconds) == text)
    }

    @Test("The figure holds losses, and the experts' balance where there are experts")
    func picture() throws {
        var evaluation = self.report(20)
        evaluation.kind = .evaluation
        let svg = try #require(RunPicture([self.report(10), self.report(20), evaluation]).svg)
        for word in ["Cross-entropy", "evaluation", "encoder 1", "Dropped tokens", "Gradient norm"] {
            #expect(svg.contains(word))
        }
        let dense = RunReport(step: 1, kind: .training, loss: 1, crossEntropy: 1, seconds: 1)
        #expect(try #require(RunPicture([dense]).svg).contains("Most used expert") == false)
        #expect(RunPicture([]).svg == nil)
    }
}
