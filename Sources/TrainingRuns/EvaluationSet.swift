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
    init(_ plan: RunPlan, _ lines: RunLines, _ tokenizer: Tokenizer) throws {
        guard !plan.evaluationData.isEmpty || plan.evaluationShare > 0 else {
            self.batches = []
            return
        }
        let isHeldOut = plan.evaluationData.isEmpty
        // A text holds out its end, other data lines from all over.
        let holdsOutLines = isHeldOut && !plan.examples.isNext
        let held =
            holdsOutLines
            ? lines
            : try RunLines(
                isHeldOut ? plan.data : plan.evaluationData,
                plan.examples,
                isHeldOut ? .heldOut(plan.evaluationShare) : .everything,
                tokenizer
            )
        let examples = try ExampleStream(
            held,
            settings: plan.examples,
            tokenizer: tokenizer,
            use: holdsOutLines ? .evaluation : .everything,
            evaluationShare: holdsOutLines ? plan.evaluationShare : 0,
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
