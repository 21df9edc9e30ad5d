// SPDX-License-Identifier: Apache-2.0

public import SwitchTraining

/// What a teacher is asked: how likely each token is at each place of a target.
public struct TeacherQuestion: Sendable, Hashable {
    /// Token ids of the input.
    public var input: [Int32]
    /// Token ids of the target, without a start token.
    public var target: [Int32]

    /// Asks about a target.
    ///
    /// - Parameters:
    ///   - input: Token ids of the input.
    ///   - target: Token ids of the target.
    public init(input: [Int32], target: [Int32]) {
        self.input = input
        self.target = target
    }
}

/// What decides a teacher's answers, beside the question.
public struct TeacherIdentity: Sendable, Hashable, CustomStringConvertible {
    /// The fingerprint of the teacher's checkpoint.
    public var fingerprint: UInt64
    /// Tokens of one sequence that an expert of it takes (`expert_capacity`), which a fingerprint leaves out.
    public var expertCapacity: Int
    /// Tokens that are named at each place.
    public var kept: Int
    /// The temperature of the answers.
    public var temperature: Double

    /// Describes a teacher's answers.
    ///
    /// - Parameters:
    ///   - fingerprint: The fingerprint of the teacher's checkpoint.
    ///   - expertCapacity: Tokens of one sequence that an expert of it takes.
    ///   - kept: Tokens that are named at each place.
    ///   - temperature: The temperature of the answers.
    public init(fingerprint: UInt64, expertCapacity: Int, kept: Int, temperature: Double) {
        self.fingerprint = fingerprint
        self.expertCapacity = expertCapacity
        self.kept = kept
        self.temperature = temperature
    }

    /// The same text for the same answers.
    public var description: String {
        "fingerprint \(self.fingerprint), capacity \(self.expertCapacity), top \(self.kept), temperature \(self.temperature)"
    }
}

/// A model whose answers a student learns from, wherever it runs.
///
/// Its answers are a function of its identity and the question: the same bits whenever, however often and wherever they are
/// computed.
public protocol Teacher: AnyObject {
    /// What decides the answers, beside the question.
    var identity: TeacherIdentity { get }

    /// Answers questions; returns once each has its answer.
    ///
    /// - Parameter questions: The questions, at least one.
    /// - Returns: The answers, in the order of the questions.
    /// - Throws: What prevents an answer, in words.
    func answers(to questions: [TeacherQuestion]) throws -> [TeacherAnswer]
}

extension Teacher {
    /// Adds the teacher's answers to a step's examples.
    func teach(_ batch: inout TrainingBatch) throws {
        let questions = batch.examples.map { TeacherQuestion(input: $0.input, target: $0.target) }
        let answers = try self.answers(to: questions)
        guard answers.count == questions.count else {
            throw RunError("the teacher gave \(answers.count) answers to \(questions.count) questions; ask it again")
        }
        for (index, answer) in answers.enumerated() { batch.examples[index].teacher = answer }
    }
}
