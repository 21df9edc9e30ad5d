// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import Synchronization

/// Requests that follow one another on some streams at once, and what their steps took.
struct ServedLoad: Sendable {
    /// What was served in a while.
    struct Served: Sendable {
        /// From each token of an answer to the next one.
        var steps: [Duration] = []
        var answers = 0
        var dropped: UInt64 = 0

        /// The time that a fraction of the steps does not exceed, in milliseconds.
        func milliseconds(at fraction: Double) -> Double { Percentiles(self.steps).at(fraction).inSeconds * 1000 }
    }

    /// An answer to the last bit.
    private struct Answer: Hashable {
        let tokens: [UInt32]
        let score: UInt32
    }

    /// Different inputs, which come round and round.
    private static let inputCount = 8

    private let inputs: [[Int32]]
    private let newTokens: Int
    private let streams: Int
    private let pause: Duration
    /// The first answer to each input; a reference, so that all copies compare with the same ones.
    private let answers = Known()

    private final class Known: Sendable {
        let answers = Mutex<[Int: Answer]>([:])
        let differing = Atomic<Int>(0)
    }

    /// Prepares a load.
    ///
    /// - Parameters:
    ///   - vocabulary: Token ids of the model.
    ///   - inputTokens: Tokens of each input.
    ///   - newTokens: Tokens of each answer.
    ///   - streams: Requests at once.
    ///   - pause: From the end of an answer to the next request of its stream.
    init(vocabulary: Int, inputTokens: Int, newTokens: Int, streams: Int, pause: Duration) {
        self.inputs = BenchInputs.sequences(count: Self.inputCount, tokens: inputTokens, vocabulary: vocabulary)
        self.newTokens = newTokens
        self.streams = streams
        self.pause = pause
    }

    /// Answers whose tokens or scores differ from the first one's to the same input.
    var differing: Int { self.answers.differing.load(ordering: .relaxed) }

    /// Makes requests until there are to be no more.
    ///
    /// - Parameters:
    ///   - client: The gateway.
    ///   - isOver: Asked before each request.
    /// - Returns: What was served.
    /// - Throws: What the gateway answers.
    func run(_ client: GatewayClient, until isOver: @escaping @Sendable () -> Bool) async throws -> Served {
        try await withThrowingTaskGroup(of: Served.self) { group in
            for stream in 0..<self.streams {
                group.addTask {
                    var served = Served()
                    var request = stream
                    while !isOver() {
                        try await self.answer(request % self.inputs.count, client, isOver, &served)
                        request += 1
                        if self.pause > .zero { try await Task.sleep(for: self.pause) }
                    }
                    return served
                }
            }
            return try await group.reduce(into: Served()) {
                $0.steps += $1.steps
                $0.answers += $1.answers
                $0.dropped += $1.dropped
            }
        }
    }

    private func answer(
        _ input: Int,
        _ client: GatewayClient,
        _ isOver: @Sendable () -> Bool,
        _ served: inout Served
    ) async throws {
        let count = UInt32(self.newTokens)
        let request = GenerateRequest(
            input: .tokenIDs(self.inputs[input].map { UInt32($0) }),
            parameters: GenerationParameters(maxNewTokens: count, minNewTokens: count)
        )
        var last: ContinuousClock.Instant?
        for try await event in try await client.generateStream(request) {
            switch event {
            case .token:
                let now = ContinuousClock.now
                // A step after the end is no longer beside training.
                if let last, !isOver() { served.steps.append(last.duration(to: now)) }
                last = now
            case .response(let response):
                served.answers += 1
                served.dropped += (response.usage?.dropped ?? []).reduce(0) { $0 + $1.tokens }
                self.compare(response, to: input)
            }
        }
    }

    private func compare(_ response: GenerateResponse, to input: Int) {
        let answer = Answer(
            tokens: response.generations.first?.tokenIDs ?? [],
            score: response.generations.first?.score.bitPattern ?? 0
        )
        let isKnown = self.answers.answers.withLock { answers in
            let known = answers[input, default: answer]
            answers[input] = known
            return known == answer
        }
        if !isKnown { self.answers.differing.add(1, ordering: .relaxed) }
    }
}
