// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import Foundation
import GatewayServing
import NIOCore
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

/// A gateway over expert hosts as any gRPC client sees it.
@Suite(.serialized)
struct GatewayTests {
    private let model = TestModel.miniature

    @Test("The cluster answers the miniature's prompts with transformers' ids, alone and among fifteen others")
    func prompts() async throws {
        let prompts = try Prompt.all()
        try await withHosts(self.model, pools: 4) { _, pools in
            try await withGateway(pools) { gateway, channel in
                for prompt in prompts.prefix(3) {
                    let response = try await channel.generate(GenerateRequest(input: .text(prompt.prompt)))
                    #expect(response.generations.map(\.tokenIDs) == [prompt.tokenIDs])
                    #expect(response.usage?.dropped == [])
                }
                try await withThrowingTaskGroup(of: (Int, GenerateResponse).self) { group in
                    for index in 0..<16 {
                        let request = GenerateRequest(input: .text(prompts[index % prompts.count].prompt))
                        group.addTask { (index, try await channel.generate(request)) }
                    }
                    for try await (index, response) in group {
                        let prompt = prompts[index % prompts.count]
                        #expect(response.generations.map(\.tokenIDs) == [prompt.tokenIDs], "\(prompt.prompt)")
                        #expect(response.generations.first?.finishReason == .endOfSequence)
                    }
                }
                #expect(gateway.engine.load.running == 0)
            }
        }
    }

    @Test("Micro-batches that take turns, and an encoder run in one piece per step, change no answer")
    func overlap() async throws {
        let prompts = try Prompt.all()
        var engine = EngineConfiguration()
        engine.overlap = .always
        engine.encodeTimePerStep = .zero
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools, configure: { $0.engine = engine }) { gateway, channel in
                try await withThrowingTaskGroup(of: (Int, GenerateResponse).self) { group in
                    for index in 0..<prompts.count {
                        let request = GenerateRequest(input: .text(prompts[index].prompt))
                        group.addTask { (index, try await channel.generate(request)) }
                    }
                    for try await (index, response) in group {
                        #expect(response.generations.map(\.tokenIDs) == [prompts[index].tokenIDs])
                    }
                }
                #expect(gateway.engine.load.running == 0)
            }
        }
    }

    @Test("A gateway with a placement serves its part of the model")
    func placement() async throws {
        let prompt = try Prompt.all()[0]
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools, modelDirectory: "\(folder)/gateway") { _, channel in
                let response = try await channel.generate(GenerateRequest(input: .text(prompt.prompt)))
                #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
            }
            let missing = #expect(throws: GatewayError.self) {
                try Gateway(
                    configuration: GatewayConfiguration(modelDirectory: "\(folder)/gateway", pools: [pools[0]]),
                    logger: quietLogger
                )
            }
            #expect(missing?.message.contains("pool-1") == true)
        }
    }

    @Test("A stream gives each token once, and its texts joined are the text")
    func streaming() async throws {
        let prompt = try Prompt.all()[0]
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools) { _, channel in
                var request = GenerateRequest(input: .text(prompt.prompt), parameters: .init())
                request.parameters?.topLogprobs = 2
                let events = try await self.events(channel, request)
                let tokens = events.compactMap { event -> GeneratedToken? in
                    guard case .token(let token) = event.event else { return nil }
                    return token
                }
                guard case .response(let response) = events.last?.event, let generation = response.generations.first
                else {
                    Issue.record("the last event is \(String(describing: events.last))")
                    return
                }
                #expect(events.count == tokens.count + 1)
                #expect(tokens.map(\.tokenID) == prompt.tokenIDs)
                #expect(generation.tokenIDs == prompt.tokenIDs)
                #expect(tokens.map(\.text).joined() == generation.text)
                #expect(generation.text.hasPrefix("<extra_id_0> discontent<extra_id_1> sun<extra_id_2>"))
                #expect(tokens.compactMap(\.logprob) == generation.logprobs)
                #expect(generation.logprobs.allSatisfy { $0.top.count == 2 && $0.logprob <= 0 })
                #expect(response.usage?.outputTokens == UInt32(prompt.tokenIDs.count))
            }
        }
    }

    private func events(_ channel: RPCChannel, _ request: GenerateRequest) async throws -> [GenerateEvent] {
        let method = GatewayMethods.generateStream
        let stream = channel.serverStreaming(
            Method(service: method.service, name: method.name),
            Payload(bytes: request.serialized()),
            options: CallOptions(waitForReady: true)
        )
        var events: [GenerateEvent] = []
        for try await message in stream {
            events.append(try GenerateEvent(serialized: Array(message.readableBytesView)))
        }
        return events
    }

    @Test("A stop string ends the sequence, and the text before it")
    func stopStrings() async throws {
        let prompt = try Prompt.all()[0]
        try await withHosts(self.model, pools: 1) { _, pools in
            try await withGateway(pools) { _, channel in
                var request = GenerateRequest(input: .text(prompt.prompt), parameters: .init())
                request.parameters?.stop = ["<extra_id_1>"]
                let response = try await channel.generate(request)
                #expect(response.generations.first?.text == "<extra_id_0> discontent")
                #expect(response.generations.first?.finishReason == .stop)
                #expect(response.generations.first?.tokenIDs == Array(prompt.tokenIDs.prefix(3)))
                let texts = try await self.events(channel, request)
                    .compactMap { event -> String? in
                        guard case .token(let token) = event.event else { return nil }
                        return token.text
                    }
                #expect(texts.joined() == "<extra_id_0> discontent")
            }
        }
    }

    /// Parameters for which the cluster must do what one process does.
    static let parameters: [(String, @Sendable (inout GenerationParametersMessage) -> Void)] = [
        ("four beams", { $0.numBeams = 4 }),
        (
            "four beams, two returned",
            {
                $0.numBeams = 4
                $0.numReturnSequences = 2
                $0.lengthPenalty = 0.6
            }
        ),
        (
            "three draws",
            {
                $0.doSample = true
                $0.numReturnSequences = 3
                $0.seed = 7
                $0.temperature = 1.3
            }
        ),
        (
            "a penalty",
            {
                $0.repetitionPenalty = 1.4
                $0.maxNewTokens = 9
                $0.minNewTokens = 8
            }
        ),
    ]

    @Test("Beams and samples equal a single process's", arguments: 0..<4)
    func searches(index: Int) async throws {
        let prompt = try Prompt.all()[1]
        var parameters = GenerationParametersMessage()
        Self.parameters[index].1(&parameters)
        let request = GenerateRequest(input: .text(prompt.prompt), parameters: parameters)
        let local = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: self.model.directory),
            logger: quietLogger
        )
        let expected = try await local.whileRunning { try await local.generate(request) }
        #expect(!expected.generations.isEmpty)
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools) { _, channel in
                let response = try await channel.generate(request)
                #expect(response.generations == expected.generations, "\(Self.parameters[index].0)")
                #expect(response.usage?.routedTokens == expected.usage?.routedTokens)
                #expect(response.usage?.outputTokens == expected.usage?.outputTokens)
            }
        }
    }

    @Test("A score without beams is as gateway.proto defines it: sum over length to the power of length_penalty")
    func generationScores() async throws {
        let proto = try String(contentsOfFile: "\(TestModel.root)/Protos/switchyard/v1/gateway.proto", encoding: .utf8)
        let comment = try #require(proto.components(separatedBy: "float score = 4;").first?.suffix(600))
        #expect(comment.contains("divided by the number of tokens to the power of length_penalty"))
        #expect(!comment.contains("plain sum"))
        let prompt = try Prompt.all()[2]
        try await withHosts(self.model, pools: 1) { _, pools in
            try await withGateway(pools) { _, channel in
                for (penalty, samples) in [(Float(1), false), (0.5, false), (2, true)] {
                    var request = GenerateRequest(input: .text(prompt.prompt), parameters: .init())
                    request.parameters?.lengthPenalty = penalty
                    request.parameters?.doSample = samples
                    request.parameters?.topLogprobs = 1
                    let generation = try #require(try await channel.generate(request).generations.first)
                    let sum = generation.logprobs.reduce(0) { $0 + Double($1.logprob) }
                    let length = Double(generation.tokenIDs.count)
                    #expect(length > 1)
                    let expected = sum / (penalty == 1 ? length : penalty == 2 ? length * length : length.squareRoot())
                    #expect(abs(Double(generation.score) - expected) < 1e-4, "length_penalty \(penalty)")
                }
            }
        }
    }

    @Test("Encode gives the encoder's hidden states, or their mean")
    func encode() async throws {
        let loaded = try self.model.load()
        let ids: [Int32] = [17, 4, 99, 2040, 1]
        var record = RoutingRecord()
        let hidden = try loaded.model.encode([ids], experts: loaded.experts, record: &record)[0].hidden
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools) { _, channel in
                var request = EncodeRequest(input: .tokenIDs(ids.map { UInt32($0) }))
                let states = try await channel.call(GatewayMethods.encode, request, as: EncodeResponse.self)
                #expect(states.hiddenStates?.shape == [5, 128])
                #expect(states.tokenIDs == ids.map { UInt32($0) })
                let bytes = Array(UnsafeRawBufferPointer(start: hidden.pointer, count: 5 * 128 * 4))
                #expect(states.hiddenStates?.data == bytes)
                request.pooling = .mean
                let mean = try await channel.call(GatewayMethods.encode, request, as: EncodeResponse.self)
                #expect(mean.hiddenStates?.shape == [1, 128])
                let first = mean.hiddenStates?.data.withUnsafeBytes { $0.loadUnaligned(as: Float.self) }
                let expected = (0..<5).reduce(0.0) { $0 + Double(hidden.row($1)[0]) } / 5
                #expect(abs(Double(first ?? .nan) - expected) < 1e-6)
            }
        }
    }

    @Test("Score gives the log-probabilities that generation gives")
    func score() async throws {
        let prompt = try Prompt.all()[0]
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withGateway(pools) { _, channel in
                var generate = GenerateRequest(input: .text(prompt.prompt), parameters: .init())
                generate.parameters?.topLogprobs = 3
                let generation = try await channel.generate(generate).generations[0]
                let request = ScoreRequest(
                    input: .text(prompt.prompt),
                    target: .tokenIDs(prompt.tokenIDs),
                    topLogprobs: 3
                )
                let score = try await channel.call(GatewayMethods.score, request, as: ScoreResponse.self)
                #expect(score.logprobs.map(\.tokenID) == prompt.tokenIDs)
                for (scored, generated) in zip(score.logprobs, generation.logprobs) {
                    #expect(abs(scored.logprob - generated.logprob) < 1e-4)
                    #expect(scored.top.map(\.tokenID) == generated.top.map(\.tokenID))
                }
                let total = score.logprobs.reduce(0) { $0 + $1.logprob }
                #expect(abs(score.totalLogprob - total) < 1e-4)
                #expect(abs(score.loss + total / Float(prompt.tokenIDs.count)) < 1e-4)
                #expect(score.usage?.outputTokens == UInt32(prompt.tokenIDs.count))
            }
        }
    }

    @Test("The gateway describes its model and its cluster")
    func descriptions() async throws {
        try await withHosts(self.model, pools: 2) { hosts, pools in
            try await withGateway(pools) { gateway, channel in
                _ = try await channel.generate(GenerateRequest(input: .text("Now is the winter")))
                let model = try await channel.call(
                    GatewayMethods.describeModel,
                    DescribeModelRequest(),
                    as: ModelDescription.self
                )
                #expect(model.name == "switch-mini")
                #expect(model.fingerprint == gateway.fingerprint)
                #expect(model.vocabularySize == 2048)
                #expect(model.expertsPerLayer == 8)
                #expect(model.sparseLayers.map(\.experts) == Array(repeating: Array(0..<8), count: 4))
                // The model's own page says 5.8 M.
                #expect(model.parameters > 5_700_000 && model.parameters < 5_900_000)
                let cluster = try await channel.call(
                    GatewayMethods.describeCluster,
                    DescribeClusterRequest(),
                    as: ClusterDescription.self
                )
                #expect(cluster.complete)
                #expect(cluster.pools.map(\.name) == ["pool-0", "pool-1"])
                #expect(cluster.pools.flatMap(\.replicas).map(\.state) == [.ready, .ready])
                #expect(
                    cluster.pools.flatMap(\.replicas).map(\.address) == hosts.map { "127.0.0.1:\($0.port)" }
                )
                let rows = cluster.pools.flatMap(\.replicas).reduce(0) { $0 + $1.rows }
                #expect(rows == cluster.routedTokens)
                #expect(cluster.expertLoad.flatMap(\.rows).reduce(0, +) == cluster.routedTokens)
                #expect(cluster.expertLoad.map(\.layer) == [1, 3, 1, 3])
                #expect(cluster.gateway?.running == 0)
                #expect((cluster.gateway?.steps ?? 0) > 0)
                #expect(cluster.pools.flatMap(\.replicas).allSatisfy { $0.outstandingRows == 0 && $0.failures == 0 })
            }
        }
    }

    @Test("A wrong field is INVALID_ARGUMENT, bytes that are not a message INTERNAL, an unknown method UNIMPLEMENTED")
    func statuses() async throws {
        try await withHosts(self.model, pools: 1) { _, pools in
            try await withGateway(pools) { _, channel in
                let wrong = await rpcError { _ = try await channel.generate(GenerateRequest()) }
                #expect(wrong?.code == .invalidArgument)
                let long = await rpcError {
                    let ids = [UInt32](repeating: 5, count: 5000)
                    _ = try await channel.generate(GenerateRequest(input: .tokenIDs(ids)))
                }
                #expect(long?.code == .resourceExhausted)
                let garbage = await rpcError {
                    _ = try await channel.unary(
                        Method(service: GatewayMethods.service, name: "Generate"),
                        Payload(bytes: [0xFF, 0xFF])
                    )
                }
                #expect(garbage?.code == .internal)
                let unknown = await rpcError {
                    _ = try await channel.unary(
                        Method(service: GatewayMethods.service, name: "Nothing"),
                        Payload(bytes: [])
                    )
                }
                #expect(unknown?.code == .unimplemented)
            }
        }
    }
}
