// SPDX-License-Identifier: Apache-2.0

import Batches
import CommandKit
import Foundation
import HTTPDoor
import RPCCore
import ServiceKit
import SwitchyardProtos
import TrainingData

/// Asks the lines of a file and writes their answers, as ``BatchBook`` says.
struct BatchRun {
    /// Pauses before a line is asked again where nothing is said of it: the first, and the longest.
    private static let pauses = (first: Duration.milliseconds(100), longest: Duration.seconds(2))

    let questions: BatchQuestions
    let output: BatchOutput
    /// The fingerprint of the model whose answers the file has.
    let fingerprint: UInt64
    /// The most lines in flight.
    let atOnce: Int
    /// How long to go on without any answer.
    let patience: Duration

    /// What came of a line.
    private struct Asked: Sendable {
        var line: Int
        var outcome: BatchOutcome
    }

    private enum Event: Sendable {
        case asked(Asked)
        case woken
    }

    /// Asks all lines that have no answer yet.
    ///
    /// - Returns: Lines whose answer is an error, of those that were asked now.
    /// - Throws: What ends the batch: an output that cannot be written, a caller that may not call, a gateway that gives no
    ///   answer for longer than the patience, or that serves another model by now.
    func callAsFunction() async throws -> Int {
        let before = self.output.lines
        var book = BatchBook(count: self.questions.lines.count, written: before, mostAtOnce: self.atOnce, now: .now)
        let bar = ProgressBar()
        let questions = self.questions
        var failures = 0
        try await withThrowingTaskGroup(of: Event.self) { group in
            var wake: ContinuousClock.Instant?
            var pause = Self.pauses.first
            var isModelKnown = true
            steps: while true {
                switch book.step(now: .now) {
                case .finished: break steps
                case .ask(let line):
                    group.addTask { .asked(Asked(line: line, outcome: try await questions.ask(line))) }
                    continue
                case .wait(let until):
                    // One alarm at a time: it rings once, after which the book is asked again.
                    if let until, wake == nil {
                        wake = until
                        group.addTask {
                            try await Task.sleep(until: until)
                            return .woken
                        }
                    }
                }
                guard let event = try await group.next() else { break }
                guard case .asked(let asked) = event else {
                    wake = nil
                    continue
                }
                switch asked.outcome {
                case .answered(let answer), .failed(let answer):
                    pause = Self.pauses.first
                    if !isModelKnown {
                        try await self.checkModel()
                        isModelKnown = true
                    }
                    if case .failed = asked.outcome { failures += 1 }
                    let due = book.answered(asked.line, answer, now: .now)
                    if !due.isEmpty { try self.output.write(due) }
                    let done = book.written - before
                    bar.update("Lines", completed: done, total: book.count - before, isBytes: false)
                case .turnedAway(let refusal):
                    guard book.lastAnswer.duration(to: .now) < self.patience else { throw self.exhausted(refusal) }
                    // The next answer may come from another process, with another model.
                    if !refusal.isFull { isModelKnown = false }
                    let delay = refusal.delay ?? pause
                    pause = min(pause * 2, Self.pauses.longest)
                    book.turnedAway(asked.line, isFull: refusal.isFull, until: .now.advanced(by: delay), now: .now)
                }
            }
            group.cancelAll()
        }
        return failures
    }

    private func checkModel() async throws {
        let fingerprint: UInt64
        do {
            fingerprint = try await self.questions.asker.model().fingerprint
        } catch is BatchRefusal {
            // Gone again: the next answer asks once more.
            return
        }
        guard fingerprint == self.fingerprint else {
            throw BatchError(
                "\(self.questions.asker.name) serves another model by now; serve the one that the batch began with, and run the same"
                    + " command again"
            )
        }
    }

    private func exhausted(_ refusal: BatchRefusal) -> BatchError {
        BatchError(
            "no answer in \(Int(self.patience.components.seconds)) s: \(refusal.reason); \(self.output.lines) of"
                + " \(self.questions.lines.count) lines are written, and the same command goes on from there"
        )
    }
}

/// How the lines of a batch are read.
enum BatchLines: Sendable {
    /// As texts, or as requests of the gateway.
    case own(BatchReader)
    /// As OpenAI's batch format.
    case openAI(OpenAIBatchReader)
}

extension OpenAIBatchReader {
    /// Finds lines whose `custom_id` an earlier line has.
    ///
    /// - Parameter lines: The lines.
    /// - Returns: The indices of such lines, and the first line with the same name.
    /// - Throws: `DataError` when a line cannot be read.
    static func repeatedNames(in lines: FileLines) throws -> [Int: Int] {
        var first: [String: Int] = [:]
        var repeated: [Int: Int] = [:]
        for index in 0..<lines.count {
            guard case .bytes(let bytes) = try lines.line(index), let name = Self.name(in: bytes) else { continue }
            if let earlier = first[name] { repeated[index] = earlier } else { first[name] = index }
        }
        return repeated
    }
}

/// The lines of a batch, and who is asked.
struct BatchQuestions: Sendable {
    let lines: FileLines
    let reader: BatchLines
    let asker: any BatchAsker

    /// Asks a line.
    ///
    /// - Parameter index: Its index, from 0.
    /// - Returns: What became of it.
    /// - Throws: What ends the batch.
    func ask(_ index: Int) async throws -> BatchOutcome {
        switch (try self.lines.line(index), self.reader) {
        case (.bytes(let bytes), .own(let reader)):
            return try await self.asker.ask(reader.line(bytes, index: index), index: index)
        case (.bytes(let bytes), .openAI(let reader)):
            return try await self.asker.ask(reader.line(bytes, index: index))
        case (.tooLong(let limit), .openAI(let reader)):
            return .failed(reader.tooLong(limit, index: index).refusal)
        case (.tooLong(let limit), .own):
            let fault = BatchFault(.resourceExhausted, "the line has more than \(limit) bytes")
            return .failed(BatchAnswer.line(fault, id: nil, index: index))
        }
    }
}
