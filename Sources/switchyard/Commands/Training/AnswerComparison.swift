// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import GatewayServing
import Logging
import ServiceKit
import SwitchyardProtos
import Tokenization
import TrainingData
import TrainingRuns

/// Lets a model answer inputs, and compares the answers with the targets.
struct AnswerComparison {
    /// The checkpoint's folder.
    var model: String
    /// Compute threads.
    var threads: Int
    /// Beams; the model's setting where nil.
    var beams: UInt32?

    /// Inputs that are answered at the same time.
    private static let atOnce = 32

    /// A line of the file of answers.
    private struct Answer: Encodable {
        var place: String
        var answer: String
        var target: String
    }

    /// Answers each input as a gateway would.
    ///
    /// - Parameters:
    ///   - pairs: Inputs and targets.
    ///   - maxNewTokens: Tokens of an answer at most.
    ///   - file: Where to write the answers; nil for nowhere.
    /// - Returns: How close the answers are, in the order of the pairs.
    /// - Throws: What is wrong with the model or the file, and a gateway's status.
    func compare(_ pairs: [ModelEvaluation.Pair], maxNewTokens: Int, to file: String?) async throws -> TextMeasures {
        var configuration = LocalGatewayConfiguration(modelDirectory: self.model)
        configuration.threads = self.threads
        let logger = Logger(label: "switchyard") { _ in SwiftLogNoOpLogHandler() }
        let gateway = try LocalGateway(configuration: configuration, logger: logger)
        let tokenizer = try Tokenizer(directory: self.model)
        var parameters = GenerationParameters()
        parameters.maxNewTokens = UInt32(maxNewTokens)
        parameters.doSample = false
        parameters.skipScores = true
        parameters.numBeams = self.beams
        let chosen = parameters
        let bar = ProgressBar()
        let texts = try await gateway.whileRunning {
            try await Self.inOrder(pairs) { pair in
                let request = GenerateRequest(input: .tokenIDs(pair.input.map { UInt32($0) }), parameters: chosen)
                let ids = try await gateway.generate(request).generations.first?.tokenIDs ?? []
                return tokenizer.decode(ids.map { Int32($0) }, skipSpecialTokens: true)
            } progress: {
                bar.update("Answering", completed: $0, total: pairs.count, isBytes: false)
            }
        }
        var measures = TextMeasures()
        var lines: [UInt8] = []
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        for (pair, answer) in zip(pairs, texts) {
            let target = tokenizer.decode(pair.target, skipSpecialTokens: true)
            measures.add(prediction: answer, reference: target)
            if file != nil {
                lines += try encoder.encode(Answer(place: pair.place, answer: answer, target: target))
                lines.append(UInt8(ascii: "\n"))
            }
        }
        if let file { try Data(lines).write(to: URL(fileURLWithPath: file), options: .atomic) }
        return measures
    }

    /// Works on several elements at a time; results are in the elements' order.
    private static func inOrder<Element: Sendable>(
        _ elements: [Element],
        _ work: @escaping @Sendable (Element) async throws -> String,
        progress: (Int) -> Void
    ) async throws -> [String] {
        try await withThrowingTaskGroup(of: (Int, String).self) { group in
            var results = Array(repeating: "", count: elements.count)
            var (next, done) = (0, 0)
            func add() {
                guard next < elements.count else { return }
                let (index, element) = (next, elements[next])
                group.addTask { (index, try await work(element)) }
                next += 1
            }
            for _ in 0..<Self.atOnce { add() }
            while let (index, result) = try await group.next() {
                results[index] = result
                done += 1
                progress(done)
                add()
            }
            return results
        }
    }
}
