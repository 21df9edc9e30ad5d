// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import SwitchModel
internal import SwitchTraining
internal import SwitchyardTypes
public import TensorKernels
internal import Tokenization
public import TrainingData

/// Measures a checkpoint on examples that it does not learn from.
public struct ModelEvaluation: Sendable {
    /// One example that was measured.
    public struct Pair: Sendable, Hashable {
        /// Token ids of the input.
        public var input: [Int32]
        /// Token ids of the target.
        public var target: [Int32]
        /// Where it stands: `words.tsv:7`.
        public var place: String
    }

    /// The checkpoint's folder.
    public var model: String
    /// The files of examples.
    public var data: [String]
    /// How lines become examples.
    public var examples: ExampleSettings
    /// Examples at most; the first ones of the files.
    public var mostExamples = 100_000
    /// Target tokens that are computed at once.
    public var batchTokens = 4096
    /// How many tokens an expert takes.
    public var capacity = CapacityPolicy.factor(2)
    /// The seed of plain text's masks.
    public var seed: UInt64 = 0

    /// An evaluation with the defaults.
    ///
    /// - Parameters:
    ///   - model: The checkpoint's folder.
    ///   - data: The files of examples.
    ///   - examples: How lines become examples.
    public init(model: String, data: [String], examples: ExampleSettings) {
        self.model = model
        self.data = data
        self.examples = examples
    }

    /// Computes loss and token accuracy.
    ///
    /// - Parameters:
    ///   - pool: The threads.
    ///   - progress: Told how many examples are measured, of how many at most.
    /// - Returns: The measures, and the examples.
    /// - Throws: `CheckpointError`, `TokenizerError`, `DataError`, `TrainingError` or ``RunError``.
    public func run(pool: WorkPool, progress: (Int, Int) -> Void) throws -> (RunReport, [Pair]) {
        let model = RunModel.checkpoint(self.model)
        let (configuration, checkpoint) = try model.open(resumingFrom: nil)
        let tokenizer = try TrainingRun.tokenizer(model, configuration, for: self.examples)
        let lines = try RunLines(self.data, self.examples, .everything, tokenizer)
        let examples = try ExampleStream(
            lines,
            settings: self.examples,
            tokenizer: tokenizer,
            use: .everything,
            seed: self.seed
        )
        var stream = try BatchStream(examples, limits: BatchLimits(targetTokens: self.batchTokens))
        var settings = TrainingSettings()
        settings.evaluationCapacity = self.capacity
        let step = try TrainingStep(configuration, settings: settings, pool: pool)
        let weights = try model.weights(step.layout, configuration, checkpoint, seed: 0, pool: pool)
        var means = ReportMeans(seconds: 0)
        var pairs: [Pair] = []
        let total = min(self.mostExamples, lines.count)
        let start = ContinuousClock.now
        while pairs.count < self.mostExamples, let batch = try stream.next() {
            let room = self.mostExamples - pairs.count
            let examples = batch.examples(partTokens: nil, atMost: room)
            means.add(try step.evaluate(examples, weights: weights))
            for (example, line) in zip(examples.examples, batch.lines) {
                pairs.append(Pair(input: example.input, target: example.target, place: "\(lines.place(of: line))"))
            }
            progress(min(pairs.count, total), total)
        }
        guard !pairs.isEmpty else {
            throw RunError("no line could be used: \(stream.examples.faults)")
        }
        progress(total, total)
        var report = means.report(step: 0, seconds: (ContinuousClock.now - start).inSeconds)
        report.kind = .evaluation
        report.gradientNorm = nil
        report.unusableLines = self.examples.unusable(stream.examples.faults).count
        return (report, pairs)
    }
}
