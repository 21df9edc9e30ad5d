// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import SwitchModel
import SwitchTraining
import SwitchyardTypes
import TensorKernels
import TrainingData
import TrainingRuns

/// A training run around frozen experts, which is held between two steps until it may go on.
struct FrozenTrainer: Sendable {
    /// What steps took.
    struct Times: Sendable {
        var steps = 0
        var seconds = 0.0
        /// Seconds in which the run waited for experts' outputs and gradients.
        var forwardSeconds = 0.0
        var backwardSeconds = 0.0

        /// Seconds of a step.
        var perStep: Double { self.steps > 0 ? self.seconds / Double(self.steps) : 0 }
    }

    /// Whether the run may go on, and what its steps took since it was last let go.
    private struct State {
        var isOpen = false
        var isHeld = false
        var hasEnded = false
        /// Whether gradients were asked for since the run last went on: a step was made.
        var hasStepped = false
        var times = Times()
    }

    private let state = Monitor(State())

    /// Trains until ``end()``; blocks the calling thread.
    ///
    /// - Parameters:
    ///   - plan: The run, the model's experts frozen.
    ///   - threads: Its compute threads.
    ///   - experts: Where its experts are.
    /// - Throws: What the run throws of its own.
    func run(_ plan: RunPlan, threads: Int, experts: any TrainingExperts) throws {
        defer { self.state.notify { $0.hasEnded = true } }
        let timed = TimedExperts(experts: experts) { isBackward, time in
            self.state.withLock { state in
                if isBackward { state.times.backwardSeconds += time } else { state.times.forwardSeconds += time }
                state.hasStepped = state.hasStepped || isBackward
                return !state.hasEnded
            }
        }
        do {
            let run = try TrainingRun(plan, resumes: false, pool: WorkPool(threads: threads), experts: .frozen(timed)) {
                _ in
            }
            // When the run last went on.
            var start = ContinuousClock.now
            _ = try run.run {
                let time = (ContinuousClock.now - start).inSeconds
                self.state.notify { state in
                    state.times.seconds += time
                    state.times.steps += state.hasStepped ? 1 : 0
                    state.hasStepped = false
                    state.isHeld = !state.isOpen
                }
                _ = self.state.wait { $0.isOpen || $0.hasEnded ? true : nil }
                self.state.withLock { $0.isHeld = false }
                start = .now
                // The experts' next call ends the run, which saves nothing then.
                return false
            }
        } catch  where self.state.withLock({ $0.hasEnded }) {
            // It was ended.
        }
    }

    /// Lets the run go on, and counts from now.
    func go() {
        self.state.notify { state in
            state.isOpen = true
            state.times = Times()
        }
    }

    /// Holds the run after its current step; blocks the calling thread until then.
    ///
    /// - Returns: What its steps took.
    /// - Throws: ``BenchError`` where the run has ended of itself.
    func hold() throws -> Times {
        self.state.notify { $0.isOpen = false }
        let times = self.state.wait { state in state.isHeld || state.hasEnded ? (state.times, state.hasEnded) : nil }
        guard let times, !times.1, times.0.steps > 0 else { throw BenchError("the training run has ended early") }
        return times.0
    }

    /// Waits until the run has its model and is held before its first step.
    func ready() {
        _ = self.state.wait { $0.isHeld || $0.hasEnded ? true : nil }
    }

    /// Ends the run without a save.
    func end() {
        self.state.notify { $0.hasEnded = true }
    }
}

/// Experts whose calls are timed, and which fail once the run is to end.
private struct TimedExperts: TrainingExperts {
    let experts: any TrainingExperts
    /// Told after each call which kind it was and how many seconds it took; says whether the run goes on.
    let note: @Sendable (_ isBackward: Bool, _ seconds: Double) -> Bool

    func forward(_ layer: SparseLayer, groups: [ExpertRows], tokens: FloatMatrix) throws -> FloatMatrix {
        try self.timed(isBackward: false) { try self.experts.forward(layer, groups: groups, tokens: tokens) }
    }

    func backward(
        _ layer: SparseLayer,
        groups: [ExpertRows],
        tokens: FloatMatrix,
        outputGradients: FloatMatrix
    ) throws -> FloatMatrix {
        try self.timed(isBackward: true) {
            try self.experts.backward(layer, groups: groups, tokens: tokens, outputGradients: outputGradients)
        }
    }

    private func timed(isBackward: Bool, _ body: () throws -> FloatMatrix) throws -> FloatMatrix {
        let start = ContinuousClock.now
        let result = try body()
        guard self.note(isBackward, (ContinuousClock.now - start).inSeconds) else { throw CancellationError() }
        return result
    }
}

extension FrozenTrainer {
    /// Examples to learn from: lines of a few words, all of about the same length, in a file of a folder.
    ///
    /// - Parameters:
    ///   - folder: Where the file goes.
    ///   - words: Words of an input, and of a target.
    /// - Returns: The file.
    /// - Throws: What the system says of the file.
    static func data(in folder: String, words: Int) throws -> String {
        let vocabulary = ["horse", "king", "night", "sword", "crown", "heart", "ship", "sea", "house", "day"]
        var random = Draw(state: 7)
        let lines = (0..<2000)
            .map { _ in
                let drawn = (0..<2 * words).map { _ in vocabulary[random.next(below: vocabulary.count)] }
                return "\(drawn.prefix(words).joined(separator: " "))\t\(drawn.suffix(words).joined(separator: " "))"
            }
        let file = "\(folder)/data.tsv"
        try lines.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
        return file
    }

    /// Numbers that are the same at every run (Knuth's MMIX generator).
    private struct Draw {
        var state: UInt64

        mutating func next(below limit: Int) -> Int {
            self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((self.state >> 33) % UInt64(limit))
        }
    }
}
