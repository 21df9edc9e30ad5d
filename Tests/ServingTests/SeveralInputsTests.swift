// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import LossyExperts
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import Testing
import Tokenization

@testable import GatewayServing

/// Several inputs in one call of Encode or Score: the answers, what they share, and what is refused.
@Suite("Several inputs in one call", .serialized)
struct SeveralInputsTests {
    private let model = TestModel.miniature

    /// An answer without the times that it took.
    private func untimed(_ usage: Usage?) -> Usage? {
        usage.map {
            Usage(
                inputTokens: $0.inputTokens,
                outputTokens: $0.outputTokens,
                dropped: $0.dropped,
                routedTokens: $0.routedTokens
            )
        }
    }

    /// Calls of the pools' hosts so far.
    private func calls(_ channel: RPCChannel) async throws -> UInt64 {
        try await channel.describeCluster().pools.reduce(0) { $0 + $1.calls }
    }

    /// What Encode answers for one input, as one of several.
    private func alone(_ request: EncodeRequest, _ input: EncodeInput, _ channel: RPCChannel) async throws
        -> EncodeResult
    {
        var single = request
        single.inputs = []
        single.input = input.input
        single.encoderRoutes = input.encoderRoutes
        let answer = try await channel.encode(single)
        #expect(answer.results.isEmpty)
        return EncodeResult(
            hiddenStates: answer.hiddenStates,
            tokenIDs: answer.tokenIDs,
            usage: self.untimed(answer.usage),
            encoderRoutes: answer.encoderRoutes
        )
    }

    /// What Score answers for one input, as one of several.
    private func alone(_ request: ScoreRequest, _ input: ScoreInput, _ channel: RPCChannel) async throws
        -> ScoreResult
    {
        var single = request
        single.inputs = []
        single.input = input.input
        single.target = input.target
        single.encoderRoutes = input.encoderRoutes
        single.decoderRoutes = input.decoderRoutes
        let answer = try await channel.score(single)
        #expect(answer.results.isEmpty)
        return ScoreResult(
            logprobs: answer.logprobs,
            totalLogprob: answer.totalLogprob,
            loss: answer.loss,
            usage: self.untimed(answer.usage),
            encoderRoutes: answer.encoderRoutes,
            decoderRoutes: answer.decoderRoutes,
            routerLosses: answer.routerLosses,
            logits: answer.logits,
            distributions: answer.distributions
        )
    }

    /// At the temperature 1, distributions are what `top_logprobs` names, bit for bit, by ascending ids.
    private func expectDistributions(_ result: ScoreResult) {
        let top = result.logprobs.flatMap { $0.top.sorted { $0.tokenID < $1.tokenID } }
        let ids = top.map(\.tokenID).flatMap { withUnsafeBytes(of: $0.littleEndian) { Array($0) } }
        let logprobs = top.map(\.logprob.bitPattern).flatMap { withUnsafeBytes(of: $0.littleEndian) { Array($0) } }
        let expected = Distributions(tokensPerPosition: 3, tokenIDs: ids, logprobs: logprobs)
        #expect(!top.isEmpty && result.distributions == expected)
    }

    @Test("Encode: each answer has the bits that it has alone, and the inputs share their expert calls")
    func encode() async throws {
        let prompts = try Prompt.all()
        let inputs = (0..<24)
            .map { index -> EncodeInput in
                index % 5 == 4
                    ? EncodeInput(input: .tokenIDs([UInt32](repeating: UInt32(17 + index), count: 1 + index) + [1]))
                    : EncodeInput(input: .text(prompts[index % prompts.count].prompt))
            }
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools) { _, channel in
                for pooling in [Pooling.perToken, .mean] {
                    var request = EncodeRequest(pooling: pooling, returnRoutes: pooling == .mean, inputs: inputs)
                    let before = try await self.calls(channel)
                    let answer = try await channel.encode(request)
                    let shared = try await self.calls(channel) - before
                    // The encoder has two sparse layers, and each pool gets one call for a layer.
                    #expect((2...4).contains(shared))
                    #expect(answer.hiddenStates == nil && answer.tokenIDs.isEmpty && answer.usage == nil)
                    #expect(answer.results.count == inputs.count)
                    for (input, result) in zip(inputs, answer.results) {
                        var result = result
                        result.usage = self.untimed(result.usage)
                        #expect(result == (try await self.alone(request, input, channel)))
                    }
                    // Routes are each input's own.
                    let routes = answer.results.map(\.encoderRoutes)
                    request.inputs = zip(inputs, routes).map { EncodeInput(input: $0.input, encoderRoutes: $1) }
                    let again = try await channel.encode(request)
                    #expect(again.results.map(\.hiddenStates) == answer.results.map(\.hiddenStates))
                }
            }
        }
    }

    @Test("Score: each answer has the bits that it has alone, and the inputs share passes of the decoder")
    func score() async throws {
        let prompts = try Prompt.all()
        let inputs = (0..<12)
            .map { index -> ScoreInput in
                let prompt = prompts[index % prompts.count]
                return ScoreInput(
                    input: .text(prompt.prompt),
                    target: index % 4 == 3
                        ? .text("the sun of York") : .tokenIDs(Array(prompt.tokenIDs.prefix(2 + index)))
                )
            }
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools) { _, channel in
                let request = ScoreRequest(
                    topLogprobs: 3,
                    returnRoutes: true,
                    returnRouterLosses: true,
                    returnLogits: true,
                    inputs: inputs,
                    distributionTokens: 3
                )
                let before = try await self.calls(channel)
                let answer = try await channel.score(request)
                let shared = try await self.calls(channel) - before
                #expect((4...8).contains(shared))
                #expect(answer.logprobs.isEmpty && answer.usage == nil && answer.logits == nil)
                #expect(answer.results.count == inputs.count)
                for (input, result) in zip(inputs, answer.results) {
                    var result = result
                    result.usage = self.untimed(result.usage)
                    #expect(result.routerLosses != nil && result.logits != nil && result.status == nil)
                    self.expectDistributions(result)
                    #expect(result == (try await self.alone(request, input, channel)))
                }
                // More than a pass takes: the answers are the same in several.
                let long = (0..<3)
                    .map { index -> ScoreInput in
                        let ids = (0..<300).map { UInt32(5 + ($0 * (index + 3)) % 2000) }
                        return ScoreInput(input: .text(prompts[index].prompt), target: .tokenIDs(ids))
                    }
                let results = try await channel.score(ScoreRequest(inputs: long)).results
                #expect(EngineWorker.targetTokensPerPass < 900)
                for (input, result) in zip(long, results) {
                    var result = result
                    result.usage = self.untimed(result.usage)
                    #expect(result == (try await self.alone(ScoreRequest(), input, channel)))
                }
            }
        }
    }

    @Test("An input that loses tokens under a strict policy has a status, and the others their answers")
    func ownEnds() async throws {
        let inputs = (0..<16).map { EncodeInput(input: .tokenIDs([UInt32(100 + 37 * $0), 1])) }
        let request = EncodeRequest(dropPolicy: .init(strict: true), inputs: inputs)
        let whole = try await TestEngine.run { test in
            try await self.handler(test).encode(request, .init()).results
        }
        #expect(whole.allSatisfy { $0.status == nil })
        let drops = TestEngine.Drops(loss: .missing([0, 1]), stacks: [.encoder], reason: .timeout)
        let partial = try await TestEngine.run(dropping: drops) { test in
            try await self.handler(test).encode(request, .init()).results
        }
        #expect(partial.count == inputs.count)
        let failed = partial.count { $0.status != nil }
        #expect(failed > 0 && failed < inputs.count)
        for (result, expected) in zip(partial, whole) {
            if let status = result.status {
                #expect(status.code == UInt32(Status.Code.deadlineExceeded.rawValue))
                #expect(status.message.contains("encoder layer"))
                #expect(result.hiddenStates == nil && result.tokenIDs.isEmpty && result.usage == nil)
            } else {
                #expect(result.hiddenStates == expected.hiddenStates)
            }
        }
        // Without any answer the call fails.
        let all = TestEngine.Drops(loss: .rows(fraction: 1), stacks: [.encoder], reason: .unavailable)
        let error = try await TestEngine.run(dropping: all) { test in
            await rpcError { _ = try await self.handler(test).encode(request, .init()) }
        }
        #expect(error?.code == .unavailable)
        #expect(error?.message.hasPrefix("inputs[0]: ") == true)
    }

    @Test("A call that is cancelled frees the places of all its inputs")
    func cancelled() async throws {
        // The engine does not run, so the inputs wait.
        let test = try TestEngine()
        let handler = try self.handler(test)
        let inputs = (0..<7).map { EncodeInput(input: .tokenIDs([UInt32(5 + $0), 1])) }
        let call = Task { try await handler.encode(EncodeRequest(inputs: inputs), .init()) }
        let waiting = await eventually { test.engine.load.queued == 7 }
        call.cancel()
        let freed = await eventually { test.engine.load.queued == 0 }
        #expect(waiting && freed)
        let error = await rpcError { _ = try await call.value }
        #expect(error?.code == .cancelled)
    }

    @Test("Inputs that the queue has no room for are refused together")
    func noRoom() async throws {
        var configuration = EngineConfiguration()
        configuration.scheduler.queueLimit = 5
        let test = try TestEngine(configuration: configuration)
        func requests(_ count: Int) -> [EngineRequest] {
            (0..<count).map { EngineRequest(input: [Int32(5 + $0), 1], work: .encode) }
        }
        let tickets = try test.engine.submit(requests(3))
        #expect(tickets.count == 3 && test.engine.load.queued == 3)
        let error = await rpcError { _ = try test.engine.submit(requests(3)) }
        #expect(error?.code == .resourceExhausted)
        #expect(error?.message.contains("the call has 3 inputs, but 3 requests wait and the limit is 5") == true)
        #expect(error?.metadata.first("grpc-retry-pushback-ms") != nil)
        #expect(test.engine.load.queued == 3)
        let more = try test.engine.submit(requests(2))
        #expect(more.count == 2 && test.engine.load.queued == 5)
    }

    private func handler(_ test: TestEngine, limits: RequestLimits = RequestLimits()) throws -> RequestHandler {
        RequestHandler(
            reader: RequestReader(
                tokenizer: test.tokenizer,
                model: try ModelConfiguration.load(directory: self.model.directory),
                limits: limits,
                batchSlots: 8
            ),
            engine: test.engine
        )
    }
}

extension RPCChannel {
    fileprivate func encode(_ request: EncodeRequest) async throws -> EncodeResponse {
        try await self.call(GatewayMethods.encode, request, as: EncodeResponse.self)
    }

    fileprivate func score(_ request: ScoreRequest) async throws -> ScoreResponse {
        try await self.call(GatewayMethods.score, request, as: ScoreResponse.self)
    }
}
