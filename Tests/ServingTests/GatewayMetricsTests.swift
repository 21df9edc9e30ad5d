// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import LossyExperts
import Metrics
import MetricsTestKit
import RPCCore
import SwitchModel
import SwitchyardTypes
import Testing

@testable import GatewayServing

@Suite
struct GatewayMetricsTests {
    private func requests(_ metrics: TestMetrics, _ outcome: GatewayMetrics.Outcome) throws -> Int64 {
        try metrics.expectCounter("switchyard_requests_total", [("outcome", outcome.rawValue)]).totalValue
    }

    @Test("all metrics exist from the start, at zero, with Prometheus names")
    func names() throws {
        let metrics = TestMetrics()
        let layers = [SparseLayer(stack: .encoder, block: 1), SparseLayer(stack: .decoder, block: 3)]
        _ = GatewayMetrics(layers: layers, factory: metrics)
        for outcome in GatewayMetrics.Outcome.allCases {
            #expect(try self.requests(metrics, outcome) == 0)
        }
        for layer in layers {
            for reason in ["capacity", "timeout", "unavailable", "overloaded", "bad_reply"] {
                let place = [("stack", "\(layer.stack)"), ("layer", "\(layer.block)"), ("reason", reason)]
                #expect(try metrics.expectCounter("switchyard_dropped_tokens_total", place).totalValue == 0)
            }
            let stack = [("stack", "\(layer.stack)")]
            #expect(try metrics.expectCounter("switchyard_routed_tokens_total", stack).totalValue == 0)
        }
        for name in ["steps", "decoded_tokens"] {
            #expect(try metrics.expectCounter("switchyard_\(name)_total").totalValue == 0)
        }
        for name in ["step", "queue", "first_token", "next_token"] {
            #expect(try metrics.expectTimer("switchyard_\(name)_seconds").values.isEmpty)
        }
    }

    @Test("the engine's work is counted once, and agrees with the responses")
    func counts() async throws {
        let metrics = TestMetrics()
        try await TestEngine.run(
            dropping: .init(loss: .missing([0, 1, 2, 5]), reason: .badReply),
            metrics: metrics
        ) { test in
            var dropped: [SparseLayer: Int] = [:]
            var routed = 0
            var tokens = 0
            for kind in [TestEngine.Kind.generate, .generate, .score] {
                let result = try await test.result(of: test.request(kind))
                routed += result.usage.routedTokens
                for entry in result.usage.dropped {
                    #expect(entry.reason == .badReply)
                    dropped[entry.layer, default: 0] += entry.count
                }
                if kind == .generate { tokens += result.usage.outputTokens }
            }
            // The step's end is reported after the request's.
            let ended = await eventually {
                metrics.timers(label: "switchyard_step_seconds").first?.values.count == Int(test.engine.load.steps)
                    && test.engine.load.running == 0
            }
            #expect(ended)
            #expect(try self.requests(metrics, .finished) == 3)
            #expect(metrics.counterTotal(label: "switchyard_requests_total") == 3)
            for (layer, count) in dropped {
                let place = [("stack", "\(layer.stack)"), ("layer", "\(layer.block)"), ("reason", "bad_reply")]
                #expect(try metrics.expectCounter("switchyard_dropped_tokens_total", place).totalValue == Int64(count))
            }
            #expect(dropped.count == 4)
            #expect(
                metrics.counterTotal(label: "switchyard_dropped_tokens_total")
                    == dropped.values.reduce(0) { $0 + Int64($1) }
            )
            #expect(metrics.counterTotal(label: "switchyard_routed_tokens_total") == Int64(routed))
            #expect(metrics.counterTotal(label: "switchyard_steps_total") == Int64(test.engine.load.steps))
            #expect(metrics.counterTotal(label: "switchyard_decoded_tokens_total") == Int64(tokens))
            #expect(try metrics.expectTimer("switchyard_queue_seconds").values.count == 3)
            #expect(try metrics.expectTimer("switchyard_first_token_seconds").values.count == 2)
            #expect(try metrics.expectTimer("switchyard_next_token_seconds").values.count == tokens - 2)
        }
    }

    @Test("each end of a request has its outcome")
    func outcomes() async throws {
        let metrics = TestMetrics()
        try await TestEngine.run(
            dropping: .init(loss: .rows(fraction: 1)),
            metrics: metrics
        ) { test in
            for policy in [DropPolicy(strict: true), DropPolicy(maxDroppedFraction: 0.5)] {
                let error = await rpcError { _ = try await test.result(of: test.request(.generate, policy)) }
                #expect(error?.code == .deadlineExceeded)
            }
            let lostTokensCount = try self.requests(metrics, .lostTokens)
            #expect(lostTokensCount == 2)

            var late = test.request()
            late.deadline = .now
            let expired = await rpcError { _ = try await test.result(of: late) }
            #expect(expired?.code == .deadlineExceeded)
            let expiredCount = try self.requests(metrics, .expired)
            #expect(expiredCount == 1)

            var parameters = GenerationParameters()
            parameters.beamCount = 1_000_000
            var wide = test.request()
            wide.work = .generate(parameters, stops: [])
            let refused = await rpcError { _ = try await test.result(of: wide) }
            #expect(refused?.code == .invalidArgument)
            let refusedCount = try self.requests(metrics, .refused)
            #expect(refusedCount == 1)
        }
        #expect(metrics.counterTotal(label: "switchyard_requests_total") == 4)
    }

    @Test("waiting requests are counted when they are cancelled and when the engine stops")
    func waiting() async throws {
        let metrics = TestMetrics()
        // This engine is not running yet, so that requests wait.
        let test = try TestEngine(metrics: metrics)
        let first = try test.engine.submit(test.request())
        let second = try test.engine.submit(test.request())
        test.engine.cancel(first.id)
        test.engine.cancel(first.id)
        #expect(try self.requests(metrics, .cancelled) == 1)
        let life = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            try await test.engine.run()
        }
        _ = await life.result
        for await event in second.events {
            guard case .failed(let error) = event else { continue }
            #expect(error.code == .unavailable)
        }
        #expect(try self.requests(metrics, .failed) == 1)
        #expect(metrics.counterTotal(label: "switchyard_requests_total") == 2)
    }
}
