// SPDX-License-Identifier: Apache-2.0

internal import SwitchTraining

/// What decides a teacher's own answers, beside the input.
public struct AnswerIdentity: Sendable, Hashable, CustomStringConvertible {
    /// The fingerprint of the teacher's checkpoint.
    public var fingerprint: UInt64
    /// Tokens of one sequence that an expert of it takes (`expert_capacity`), which a fingerprint leaves out.
    public var expertCapacity: Int
    /// Beams of the search.
    public var beams: Int
    /// Tokens of an answer at most.
    public var mostTokens: Int

    /// Describes a teacher's answers.
    ///
    /// - Parameters:
    ///   - fingerprint: The fingerprint of the teacher's checkpoint.
    ///   - expertCapacity: Tokens of one sequence that an expert of it takes.
    ///   - beams: Beams of the search.
    ///   - mostTokens: Tokens of an answer at most.
    public init(fingerprint: UInt64, expertCapacity: Int, beams: Int, mostTokens: Int) {
        self.fingerprint = fingerprint
        self.expertCapacity = expertCapacity
        self.beams = beams
        self.mostTokens = mostTokens
    }

    /// The same text for the same answers.
    public var description: String {
        "fingerprint \(self.fingerprint), capacity \(self.expertCapacity), beams \(self.beams), most \(self.mostTokens)"
    }
}

/// A teacher whose own answers a student learns in place of the data's targets: sequence-level distillation.
///
/// From Y. Kim and A. Rush, "Sequence-Level Knowledge Distillation" (2016, arXiv 1606.07947), section 3.2: the best sequence of
/// a beam search stands for the teacher's distribution over sequences. Answers are a function of identity and input.
public protocol AnswerSource: AnyObject {
    /// What decides the answers, beside the input.
    var identity: AnswerIdentity { get }

    /// Answers inputs; returns once each has its answer.
    ///
    /// - Parameter inputs: Token ids of each input, at least one input.
    /// - Returns: Token ids of each answer, without a start token, in the order of the inputs.
    /// - Throws: What prevents an answer, in words.
    func answers(to inputs: [[Int32]]) throws -> [[Int32]]
}

extension AnswerSource {
    /// Puts the teacher's answers in place of a step's targets.
    func replaceTargets(of batch: inout TrainingBatch) throws {
        let answers = try self.answers(to: batch.examples.map(\.input))
        guard answers.count == batch.examples.count, answers.allSatisfy({ !$0.isEmpty }) else {
            throw RunError(
                "the teacher gave \(answers.count { !$0.isEmpty }) answers to \(batch.examples.count) inputs; ask it again"
            )
        }
        for (index, answer) in answers.enumerated() { batch.examples[index].target = answer }
    }
}

/// A teacher's own answers, kept on disk.
public final class CachedAnswers: AnswerSource {
    private let source: any AnswerSource
    private let cache: ContentCache

    /// Puts a cache before a teacher.
    ///
    /// - Parameters:
    ///   - source: The teacher, which is asked for what is not in the cache.
    ///   - cache: The cache.
    public init(_ source: any AnswerSource, cache: ContentCache) {
        self.source = source
        self.cache = cache
    }

    /// The teacher's own.
    public var identity: AnswerIdentity { self.source.identity }

    /// Reads answers, and asks the teacher for those that are not there.
    ///
    /// - Parameter inputs: Token ids of each input.
    /// - Returns: Token ids of each answer, in the order of the inputs.
    /// - Throws: What the teacher throws.
    public func answers(to inputs: [[Int32]]) throws -> [[Int32]] {
        let keys = inputs.map { self.key($0) }
        var answers = keys.map { self.cache.value(for: $0).flatMap { Self.ids($0) } }
        let missing = answers.indices.filter { answers[$0] == nil }
        guard !missing.isEmpty else { return answers.compactMap { $0 } }
        for (index, answer) in zip(missing, try self.source.answers(to: missing.map { inputs[$0] })) {
            answers[index] = answer
            var bytes: [UInt8] = []
            bytes.append(numbers: answer)
            self.cache.store(bytes, for: keys[index])
        }
        return answers.compactMap { $0 }
    }

    /// All that decides the answer, as bytes.
    private func key(_ input: [Int32]) -> [UInt8] {
        let identity = self.source.identity
        var bytes: [UInt8] = Array("target 1".utf8)
        bytes.append(numbers: [
            identity.fingerprint, UInt64(identity.expertCapacity), UInt64(identity.beams), UInt64(identity.mostTokens),
        ])
        bytes.append(numbers: input)
        return bytes
    }

    /// Reads ids; nil where there are none, or the bytes are no whole numbers.
    private static func ids(_ bytes: [UInt8]) -> [Int32]? {
        guard !bytes.isEmpty, bytes.count % 4 == 0 else { return nil }
        return bytes.withUnsafeBytes { source in
            (0..<bytes.count / 4)
                .map { Int32(littleEndian: source.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self)) }
        }
    }
}
