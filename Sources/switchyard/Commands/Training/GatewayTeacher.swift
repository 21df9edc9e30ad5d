// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import ServiceKit
import SwitchTraining
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import TrainingRuns

/// A teacher that a cluster serves: its gateway is asked with `Score`, several questions a call and several calls at a time.
///
/// A call that loses a token to a host fails as a whole, and is made again, so that hosts that come and go do not show.
final class GatewayTeacher: Teacher, Sendable {
    /// Calls in flight.
    private static let callsAtOnce = 4
    /// Bytes of a call's answers that are aimed at.
    private static let bytesPerCall = 1 << 20
    /// Tokens of a call's inputs and targets that are aimed at.
    private static let tokensPerCall = 4096
    let identity: TeacherIdentity
    private let gateway: GatewayClient
    private let inputsPerCall: Int
    private let patience: GatewayPatience

    /// Uses a gateway, if it gives the checkpoint's own bits.
    ///
    /// - Parameters:
    ///   - gateway: A client of it, which runs.
    ///   - teacher: The checkpoint that it must serve.
    ///   - kept: Tokens that are named at each place; nil for the whole vocabulary.
    ///   - temperature: The temperature of the answers.
    ///   - patience: How long to wait while the gateway gives no answer.
    /// - Throws: ``RunError`` for a gateway that serves something else, `GatewayError` for one that does not answer.
    init(
        _ gateway: GatewayClient,
        of teacher: Checkpoint,
        kept: Int?,
        temperature: Double,
        patience: GatewayPatience
    ) async throws {
        let model = try await gateway.describeModel()
        let cluster = try await gateway.describeCluster()
        try Self.check(model, cluster, serve: teacher, at: "\(gateway.endpoint)")
        self.gateway = gateway
        self.identity = TeacherIdentity(
            fingerprint: teacher.fingerprint,
            expertCapacity: teacher.configuration.expertCapacity,
            kept: min(kept ?? .max, teacher.configuration.vocabularySize),
            temperature: temperature
        )
        self.inputsPerCall = max(1, min(Int(model.maxInputs), 32))
        self.patience = patience
    }

    /// Refuses a gateway whose answers would not be those of the checkpoint in this process.
    private static func check(
        _ model: ModelDescription,
        _ cluster: ClusterDescription,
        serve teacher: Checkpoint,
        at endpoint: String
    ) throws(RunError) {
        guard model.fingerprint == teacher.fingerprint else {
            throw RunError(
                "the gateway at \(endpoint) serves another model (fingerprint \(Fingerprint.text(model.fingerprint))) than"
                    + " \(teacher.directory) (\(Fingerprint.text(teacher.fingerprint))); name the checkpoint that it serves"
            )
        }
        guard Int(model.expertCapacity) == teacher.configuration.expertCapacity else {
            throw RunError(
                "experts of the gateway at \(endpoint) take \(model.expertCapacity) tokens of a sequence, but those of"
                    + " \(teacher.directory) \(teacher.configuration.expertCapacity); serve the same config.json"
            )
        }
        guard !teacher.configuration.hasExperts || cluster.rowDType == .float32 else {
            throw RunError(
                "the gateway at \(endpoint) sends rows to its experts as \(cluster.rowDType), which rounds them; start it with"
                    + " --wire-dtype float32"
            )
        }
        let types =
            [("the gateway", model.weightDType)]
            + cluster.pools.flatMap(\.replicas).filter { $0.state == .ready }.map { ($0.address, $0.weightDType) }
        for (name, type) in types where type == .int8 {
            throw RunError(
                "\(name) of the cluster at \(endpoint) keeps weights as int8, which rounds them; start it with --dtype checkpoint"
            )
        }
    }

    /// Asks the gateway.
    ///
    /// It blocks the calling thread, which must not be one of Swift's own.
    ///
    /// - Parameter questions: The questions.
    /// - Returns: The answers, in the order of the questions.
    /// - Throws: `GatewayError` for a call that can never succeed, ``RunError`` where answers stay away.
    func answers(to questions: [TeacherQuestion]) throws -> [TeacherAnswer] {
        try Blocking.wait { try await self.ask(questions) }
    }

    private func ask(_ questions: [TeacherQuestion]) async throws -> [TeacherAnswer] {
        let parts = self.parts(of: questions)
        return try await withThrowingTaskGroup(of: (Int, [TeacherAnswer]).self) { group in
            var results: [[TeacherAnswer]] = Array(repeating: [], count: parts.count)
            var next = 0
            func add() {
                guard next < parts.count else { return }
                let (index, part) = (next, Array(questions[parts[next]]))
                group.addTask { (index, try await self.untilAnswered(part)) }
                next += 1
            }
            for _ in 0..<Self.callsAtOnce { add() }
            while let (index, answers) = try await group.next() {
                results[index] = answers
                add()
            }
            return results.flatMap { $0 }
        }
    }

    /// The questions of each call.
    private func parts(of questions: [TeacherQuestion]) -> [Range<Int>] {
        var parts: [Range<Int>] = []
        var (start, tokens, bytes) = (0, 0, 0)
        for (index, question) in questions.enumerated() {
            let ownTokens = question.input.count + question.target.count
            let ownBytes = 8 * question.target.count * self.identity.kept
            let isFull =
                index - start >= self.inputsPerCall || tokens + ownTokens > Self.tokensPerCall
                || bytes + ownBytes > Self.bytesPerCall
            if index > start, isFull {
                parts.append(start..<index)
                (start, tokens, bytes) = (index, 0, 0)
            }
            tokens += ownTokens
            bytes += ownBytes
        }
        return parts + [start..<questions.count]
    }

    /// Makes a call again until all of its questions have answers.
    private func untilAnswered(_ questions: [TeacherQuestion]) async throws -> [TeacherAnswer] {
        try await self.patience.untilAnswered(by: self.gateway.endpoint) { try await self.call(questions) }
    }

    private func call(_ questions: [TeacherQuestion]) async throws -> [TeacherAnswer] {
        let request = ScoreRequest(
            dropPolicy: SwitchyardProtos.DropPolicy(strict: true),
            inputs: questions.map {
                ScoreInput(
                    input: .tokenIDs($0.input.map { UInt32(bitPattern: $0) }),
                    target: .tokenIDs($0.target.map { UInt32(bitPattern: $0) })
                )
            },
            distributionTokens: UInt32(self.identity.kept),
            distributionTemperature: Float(self.identity.temperature)
        )
        let response = try await self.gateway.score(request)
        guard response.results.count == questions.count else {
            throw RunError(
                "the teacher at \(self.gateway.endpoint) gave \(response.results.count) answers to \(questions.count) questions;"
                    + " serve it with this version of switchyard"
            )
        }
        var answers: [TeacherAnswer] = []
        for (question, result) in zip(questions, response.results) {
            // One that lost tokens to a host has a status; it is asked again by itself.
            if result.status != nil {
                guard questions.count > 1 else {
                    throw RunError(
                        "the teacher at \(self.gateway.endpoint) gave no answer: \(result.status?.message ?? "")"
                    )
                }
                answers += try await self.untilAnswered([question])
                continue
            }
            answers.append(try self.answer(result.distributions, to: question))
        }
        return answers
    }

    private func answer(_ message: Distributions?, to question: TeacherQuestion) throws(RunError) -> TeacherAnswer {
        guard let message, Int(message.tokensPerPosition) == self.identity.kept else {
            throw RunError(
                "the teacher at \(self.gateway.endpoint) gives no distributions; serve it with this version of switchyard"
            )
        }
        let answer = TeacherAnswer(
            kept: self.identity.kept,
            tokens: Self.words(message.tokenIDs).map { Int32(bitPattern: $0) },
            logprobs: Self.words(message.logprobs).map { Float(bitPattern: $0) }
        )
        if let fault = answer.fault(places: question.target.count, vocabulary: .max) {
            throw RunError("an answer of the teacher at \(self.gateway.endpoint) \(fault); check the gateway's version")
        }
        return answer
    }

    /// Four-byte numbers, little-endian.
    private static func words(_ bytes: [UInt8]) -> [UInt32] {
        bytes.withUnsafeBytes { source in
            (0..<bytes.count / 4)
                .map { UInt32(littleEndian: source.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)) }
        }
    }
}

/// How a run waits for a gateway that gives no answer.
struct GatewayPatience: Sendable {
    /// The pauses before a call is made again: the first, and the longest.
    private static let pauses = (first: Duration.milliseconds(50), longest: Duration.seconds(2))

    /// How long it waits.
    var limit: Duration
    /// Whether the run has been told to end: then nothing is waited for.
    var isStopping: @Sendable () -> Bool

    /// Makes a call again until it has an answer.
    ///
    /// - Parameters:
    ///   - endpoint: Who is called.
    ///   - call: The call.
    /// - Returns: Its result.
    /// - Throws: An error that no other try could change; ``RunError`` where it is over its limit.
    func untilAnswered<Result: Sendable>(
        by endpoint: Endpoint,
        _ call: () async throws -> Result
    ) async throws -> Result {
        let start = ContinuousClock.now
        var pause = Self.pauses.first
        while true {
            let failure: any Error
            do {
                return try await call()
            } catch let error as GatewayError where Self.canPass(error) {
                failure = error
            }
            guard !self.isStopping(), start.duration(to: .now) < self.limit else {
                throw RunError(
                    "the teacher at \(endpoint) gave no answer in \(start.duration(to: .now)): \(failure); start the gateway and"
                        + " its hosts again, and resume"
                )
            }
            try await Task.sleep(for: pause)
            pause = min(pause * 2, Self.pauses.longest)
        }
    }

    /// Whether another try may succeed.
    private static func canPass(_ error: GatewayError) -> Bool {
        error.isRetryable
            || [.unavailable, .deadlineExceeded, .resourceExhausted, .aborted, .internal, .unknown].contains(error.code)
    }
}
