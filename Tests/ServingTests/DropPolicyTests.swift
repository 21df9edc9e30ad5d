// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import LossyExperts
import RPCCore
import SwitchModel
import SwitchyardTypes
import Testing

@testable import GatewayServing

/// How a request's drop policy treats tokens that hosts lose, for every reason, in both halves of the model and for
/// every kind of request.
@Suite(.serialized)
struct DropPolicyTests {
    private static let losses: [(reason: DropReason, code: Status.Code)] = [
        (.timeout, .deadlineExceeded), (.unavailable, .unavailable), (.overloaded, .unavailable),
        (.badReply, .unavailable),
    ]

    /// Runs an engine whose experts lose rows in one half of the model.
    private func withLoss<Result>(
        _ loss: DroppingExperts.Loss = .rows(fraction: 1),
        in stack: Stack,
        reason: DropReason = .timeout,
        _ body: (TestEngine) async throws -> Result
    ) async throws -> Result {
        try await TestEngine.run(dropping: .init(loss: loss, stacks: [stack], reason: reason), body)
    }

    @Test("strict ends a request at the layer that lost a token", arguments: Self.losses, [Stack.encoder, .decoder])
    func strict(loss: (reason: DropReason, code: Status.Code), stack: Stack) async throws {
        try await self.withLoss(in: stack, reason: loss.reason) { test in
            for kind in TestEngine.Kind.allCases {
                let request = test.request(kind, DropPolicy(strict: true))
                let error = await rpcError { _ = try await test.result(of: request) }
                if stack == .encoder || kind.decodes {
                    #expect(error?.code == loss.code, "\(kind)")
                    #expect(error?.message.contains("\(stack) layer 1 for \(loss.reason)") == true, "\(kind)")
                } else {
                    #expect(error == nil, "\(kind)")
                }
            }
            // The client gets the error at the layer; its neighbours' step continues.
            let freed = await eventually { test.engine.load.usedSlots == 0 }
            #expect(freed)
        }
    }

    @Test("drops are reported by layer and reason", arguments: Self.losses.map(\.reason), [Stack.encoder, .decoder])
    func told(reason: DropReason, stack: Stack) async throws {
        try await self.withLoss(in: stack, reason: reason) { test in
            for kind in TestEngine.Kind.allCases {
                let request = test.request(kind)
                let usage = try await test.result(of: request).usage
                let encoderTokens = 2 * request.input.count
                let lost = stack == .encoder ? encoderTokens : usage.routedTokens - encoderTokens
                // The miniature has two sparse layers in each half, and every token goes through both.
                let layers = [1, 3].map { SparseLayer(stack: stack, block: $0) }
                let expected = lost == 0 ? [] : layers.map { DroppedTokens(layer: $0, reason: reason, count: lost / 2) }
                #expect(usage.dropped == expected, "\(kind)")
                #expect((usage.routedTokens > encoderTokens) == kind.decodes, "\(kind)")
            }
        }
    }

    @Test(
        "a fraction exactly at the limit is kept, one just above is not",
        arguments: TestEngine.Kind.allCases,
        [Stack.encoder, .decoder]
    )
    func limit(kind: TestEngine.Kind, stack: Stack) async throws {
        try await self.withLoss(.missing([0, 1, 2, 5]), in: stack) { test in
            let usage = try await test.result(of: test.request(kind)).usage
            let lost = usage.dropped.reduce(0) { $0 + $1.count }
            guard stack == .encoder || kind.decodes else {
                #expect(lost == 0)
                return
            }
            let fraction = Float(lost) / Float(usage.routedTokens)
            #expect(fraction > 0)
            // In the encoder alone the fraction is larger than at the end.
            let kept = try await test.result(of: test.request(kind, DropPolicy(maxDroppedFraction: fraction)))
            #expect(kept.usage.dropped == usage.dropped)
            let below = DropPolicy(maxDroppedFraction: fraction.nextDown)
            let error = await rpcError { _ = try await test.result(of: test.request(kind, below)) }
            #expect(error?.code == .deadlineExceeded)
            // The remaining tokens are known exactly for a score, and as an upper bound for a generation.
            let counts = ["\(lost) of \(usage.routedTokens) routed", "\(lost) of at most \(usage.routedTokens) routed"]
            #expect(counts.contains { error?.message.hasPrefix($0) == true }, "\(error?.message ?? "")")
        }
    }

    @Test("a request whose fraction cannot fall below its limit any more ends after the encoder")
    func hopeless() async throws {
        try await self.withLoss(in: .encoder) { test in
            let policy = DropPolicy(maxDroppedFraction: 0.1)
            let error = await rpcError { _ = try await test.result(of: test.request(.generate, policy)) }
            #expect(error?.message.contains("at most") == true)
            #expect(test.engine.load.decodedTokens == 0)
        }
    }

    @Test("a stream whose fraction is over its limit at the end gets its tokens, then the error")
    func stream() async throws {
        try await self.withLoss(.missing([0, 1, 2, 5]), in: .decoder) { test in
            let usage = try await test.result(of: test.request()).usage
            let lost = usage.dropped.reduce(0) { $0 + $1.count }
            let limit = (Float(lost) / Float(usage.routedTokens)).nextDown
            var request = test.request(.generate, DropPolicy(maxDroppedFraction: limit))
            request.streamsTokens = true
            var tokens = 0
            var errors: [RPCError] = []
            for await event in try test.engine.submit(request).events {
                switch event {
                case .token: tokens += errors.isEmpty ? 1 : 0
                case .finished: Issue.record("the request must not end well")
                case .failed(let error): errors.append(error)
                }
            }
            #expect(tokens == usage.outputTokens)
            #expect(errors.map(\.code) == [.deadlineExceeded])
        }
    }

    @Test("capacity counts for no policy", arguments: TestEngine.Kind.allCases)
    func capacity(kind: TestEngine.Kind) async throws {
        var configuration = EngineConfiguration()
        configuration.capacityPolicy = .factor(0.1)
        try await TestEngine.run(configuration: configuration) { test in
            let policy = DropPolicy(strict: true, maxDroppedFraction: 0.001)
            let usage = try await test.result(of: test.request(kind, policy)).usage
            #expect(!usage.dropped.isEmpty)
            #expect(usage.dropped.allSatisfy { $0.reason == .capacity })
        }
    }
}
