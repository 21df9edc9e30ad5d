// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
public import SwitchTraining
public import TensorKernels

/// A teacher in this process.
///
/// It computes as a gateway's `Score` does, with the checkpoint's capacity and weights as they are stored, so a cluster that
/// serves the checkpoint gives the same bits.
public final class LocalTeacher: Teacher {
    /// The most tokens of targets in one pass of the decoder; a longer target has a pass of its own.
    ///
    /// Each token has a row of logits as long as the vocabulary, so this bounds the memory of a pass.
    static let tokensPerPass = 512

    /// What decides the answers.
    public let identity: TeacherIdentity
    private let checkpoint: Checkpoint
    private let pool: WorkPool
    /// The weights, from the first question on: where a cache has all answers, they are never read.
    private var loaded: (model: SwitchTransformer, experts: any ExpertExecutor)?

    /// Opens a teacher, whose weights are read with the first question.
    ///
    /// - Parameters:
    ///   - directory: The checkpoint's folder.
    ///   - kept: Tokens that are named at each place; nil for the whole vocabulary.
    ///   - temperature: The temperature of the answers.
    ///   - pool: The threads.
    /// - Throws: `CheckpointError` for a checkpoint that cannot be used, ``RunError`` for one that has no decoder.
    public init(_ directory: String, kept: Int?, temperature: Double, pool: WorkPool) throws {
        let (configuration, checkpoint) = try RunModel.checkpoint(directory).open(resumingFrom: nil)
        guard let checkpoint, configuration.hasDecoder else {
            throw RunError("\(directory) has no decoder and gives no answers to learn from; name another teacher")
        }
        self.identity = TeacherIdentity(
            fingerprint: checkpoint.fingerprint,
            expertCapacity: configuration.expertCapacity,
            kept: min(kept ?? .max, configuration.vocabularySize),
            temperature: temperature
        )
        self.checkpoint = checkpoint
        self.pool = pool
    }

    /// Answers questions, some targets at a time.
    ///
    /// - Parameter questions: The questions.
    /// - Returns: The answers, in the order of the questions.
    /// - Throws: `ModelError` for tokens that the teacher does not know, `CheckpointError` for weights that cannot be read.
    public func answers(to questions: [TeacherQuestion]) throws -> [TeacherAnswer] {
        var answers: [TeacherAnswer] = []
        answers.reserveCapacity(questions.count)
        var start = 0
        while start < questions.count {
            var (end, tokens) = (start, 0)
            while end < questions.count, end == start || tokens + questions[end].target.count <= Self.tokensPerPass {
                tokens += questions[end].target.count
                end += 1
            }
            answers += try self.pass(questions[start..<end])
            start = end
        }
        return answers
    }

    private func load() throws -> (model: SwitchTransformer, experts: any ExpertExecutor) {
        if let loaded { return loaded }
        let model = try SwitchTransformer(checkpoint: self.checkpoint, pool: self.pool)
        let result = (model, try LocalExperts(checkpoint: self.checkpoint, pool: self.pool))
        self.loaded = result
        return result
    }

    private func pass(_ questions: ArraySlice<TeacherQuestion>) throws -> [TeacherAnswer] {
        let (model, experts) = try self.load()
        var record = RoutingRecord()
        let options = StepOptions(logits: .all)
        let encoded = try model.encode(
            questions.map(\.input),
            experts: experts,
            options: options,
            record: &record
        )
        let first = GenerationVocabulary(model.configuration).startTokenID
        let rows = zip(questions, encoded)
            .map { question, encoded in
                DecoderInput(cache: DecoderCache(encoded), tokens: [first] + question.target.dropLast())
            }
        let logits = try model.decode(rows, experts: experts, options: options, record: &record)
        var row = 0
        return questions.map { question in
            var answer = TeacherAnswer(kept: self.identity.kept, tokens: [], logprobs: [])
            for _ in question.target {
                logits.appendLogprobs(
                    row: row,
                    top: self.identity.kept,
                    temperature: Float(self.identity.temperature),
                    to: &answer.tokens,
                    &answer.logprobs
                )
                row += 1
            }
            return answer
        }
    }
}
