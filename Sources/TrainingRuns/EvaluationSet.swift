// SPDX-License-Identifier: Apache-2.0

internal import SwitchTraining
internal import Tokenization
internal import TrainingData

/// The batches that a run is evaluated with, in memory for as long as it lasts.
struct EvaluationSet {
    let batches: [TrainingBatch]

    var exampleCount: Int { self.batches.reduce(0) { $0 + $1.examples.count } }

    /// Reads the batches.
    ///
    /// - Parameters:
    ///   - plan: The run.
    ///   - lines: The lines to learn from, of which a share may be held out.
    ///   - tokenizer: The model's tokenizer.
    /// - Throws: `DataError` for a file that cannot be read, or holds no example.
    init(_ plan: RunPlan, _ lines: FileLines, _ tokenizer: Tokenizer) throws {
        guard !plan.evaluationData.isEmpty || plan.evaluationShare > 0 else {
            self.batches = []
            return
        }
        let isHeldOut = plan.evaluationData.isEmpty
        let examples = try ExampleStream(
            isHeldOut ? lines : try FileLines(plan.evaluationData),
            settings: plan.examples,
            tokenizer: tokenizer,
            use: isHeldOut ? .evaluation : .everything,
            evaluationShare: isHeldOut ? plan.evaluationShare : 0,
            seed: plan.seed
        )
        var stream = try BatchStream(examples, limits: plan.batch)
        var batches: [TrainingBatch] = []
        var room = plan.evaluationExamples
        while room > 0, let batch = try stream.next() {
            batches.append(batch.examples(partTokens: plan.partTokens, atMost: room))
            room -= batch.count
        }
        self.batches = batches
    }
}
