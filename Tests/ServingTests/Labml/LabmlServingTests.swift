// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import RPCCore
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

@testable import GatewayServing

/// A decoder-only model behind a gateway: prompts are continued as labml_nn continues them, wherever the experts are.
@Suite("labml's model behind a gateway")
struct LabmlServingTests {
    /// Requests that are open at once.
    private static let together = 16

    private static func request(_ prompt: [UInt32], tokens: Int) -> GenerateRequest {
        var request = GenerateRequest(input: .tokenIDs(prompt), parameters: .init())
        request.parameters?.maxNewTokens = UInt32(tokens)
        return request
    }

    /// Continues prompts, some at a time.
    private static func continuations(
        _ prompts: [[UInt32]],
        tokens: Int = 24,
        together: Int,
        _ generate: @escaping @Sendable (GenerateRequest) async throws -> GenerateResponse
    ) async throws -> [[UInt32]] {
        var results: [[UInt32]] = []
        for start in stride(from: 0, to: prompts.count, by: together) {
            let part = prompts[start..<min(start + together, prompts.count)]
            results += try await withThrowingTaskGroup(of: (Int, [UInt32]).self) { group in
                for (index, prompt) in part.enumerated() {
                    group.addTask {
                        let response = try await generate(Self.request(prompt, tokens: tokens))
                        return (index, response.generations.first?.tokenIDs ?? [])
                    }
                }
                var found = [[UInt32]](repeating: [], count: part.count)
                for try await (index, ids) in group { found[index] = ids }
                return found
            }
        }
        return results
    }

    @Test("200 prompts are continued as labml does, alone and among 16", arguments: LabmlFixture.Size.allCases)
    func continuations(size: LabmlFixture.Size) async throws {
        let fixture = try LabmlFixture(size)
        let greedy = fixture.goldens.greedy
        #expect(greedy.count == 200 && fixture.goldens.leftOut < 30)
        let gateway = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: fixture.model.directory),
            logger: quietLogger
        )
        try await gateway.whileRunning {
            for together in [1, Self.together] {
                let tokens = size == .tiny || together > 1 ? 24 : 8
                let found = try await Self.continuations(greedy.map { $0[0] }, tokens: tokens, together: together) {
                    try await gateway.generate($0)
                }
                #expect(found == greedy.map { Array($0[1].prefix(tokens)) })
            }
        }
    }

    @Test("so they are on 1, 2 and 4 hosts", arguments: LabmlFixture.Size.allCases, [1, 2, 4])
    func hosts(size: LabmlFixture.Size, pools: Int) async throws {
        let fixture = try LabmlFixture(size)
        let greedy = fixture.goldens.greedy
        try await withHosts(fixture.model, pools: pools) { _, specifications in
            let folder = try ShardCache.folder(of: fixture.model, pools: pools)
            try await withGateway(specifications, modelDirectory: "\(folder)/gateway") { gateway, channel in
                // The larger model's first tokens tell as much as all of them, in less time.
                let tokens = size == .tiny ? 24 : 8
                let found = try await Self.continuations(
                    greedy.map { $0[0] },
                    tokens: tokens,
                    together: Self.together
                ) {
                    try await channel.generate($0)
                }
                #expect(found == greedy.map { Array($0[1].prefix(tokens)) })
                #expect(gateway.engine.load.dropped.isEmpty)
                let cluster = try await channel.describeCluster()
                #expect(cluster.pools.count == pools && cluster.pools.allSatisfy { $0.calls > 0 })
            }
        }
    }

    @Test("characters are streamed whole, and make up the answer")
    func streams() async throws {
        let fixture = try LabmlFixture(.tiny)
        let tokenizer = try #require(try Tokenizer.find(in: fixture.model.directory))
        let gateway = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: fixture.model.directory),
            logger: quietLogger
        )
        try await gateway.whileRunning {
            for pair in fixture.goldens.greedy.prefix(20) {
                var request = Self.request([], tokens: 24)
                // As text: every character of the prompt is one of the model's.
                request.input = .text(tokenizer.decode(pair[0].map { Int32($0) }))
                var tokens: [GeneratedToken] = []
                let response = try await gateway.generate(request) { tokens.append($0) }
                #expect(tokens.map(\.tokenID) == pair[1])
                #expect(tokens.allSatisfy { $0.text.unicodeScalars.count == 1 })
                #expect(
                    tokens.map(\.text).joined().unicodeScalars
                        .elementsEqual(
                            response.generations[0].text.unicodeScalars
                        )
                )
                #expect(response.generations.map(\.finishReason) == [.length])
            }
        }
    }

    @Test("sampled characters have torch's distribution")
    func sampling() async throws {
        let fixture = try LabmlFixture(.original)
        let gateway = try LocalGateway(
            configuration: LocalGatewayConfiguration(modelDirectory: fixture.model.directory),
            logger: quietLogger
        )
        let probabilities = try fixture.golden("sampling")
        let size = probabilities.count / fixture.goldens.sampling.count
        try await gateway.whileRunning {
            for (index, prompt) in fixture.goldens.sampling.enumerated() {
                var counts = [Double](repeating: 0, count: size)
                let (calls, width) = (64, 32)
                for call in 0..<calls {
                    var request = Self.request(prompt, tokens: 1)
                    request.parameters?.doSample = true
                    request.parameters?.topK = 0
                    request.parameters?.temperature = 2
                    request.parameters?.numReturnSequences = UInt32(width)
                    request.parameters?.seed = UInt64(1_000 * index + call)
                    for generation in try await gateway.generate(request).generations {
                        counts[Int(generation.tokenIDs[0])] += 1
                    }
                }
                let expected = probabilities[index * size..<(index + 1) * size]
                    .map { Double($0) * Double(calls * width) }
                let (statistic, cells) = Self.chiSquare(counts, expected)
                // Four standard deviations above the mean of a chi-square distribution.
                let degrees = Double(cells - 1)
                #expect(cells > 5 && statistic < degrees + 4 * (2 * degrees).squareRoot(), "\(prompt): \(statistic)")
            }
        }
    }

    /// Pearson's statistic, cells of few expected draws taken together.
    private static func chiSquare(_ counts: [Double], _ expected: [Double]) -> (statistic: Double, cells: Int) {
        var (statistic, cells) = (0.0, 0)
        var rest = (counts: 0.0, expected: 0.0)
        for (count, mean) in zip(counts, expected) {
            guard mean >= 5 else {
                rest = (rest.counts + count, rest.expected + mean)
                continue
            }
            statistic += (count - mean) * (count - mean) / mean
            cells += 1
        }
        guard rest.expected > 1 else { return (statistic, cells) }
        return (statistic + (rest.counts - rest.expected) * (rest.counts - rest.expected) / rest.expected, cells + 1)
    }
}

/// What the gateway's methods mean for a model without an encoder.
@Suite("methods of a decoder-only model")
struct LabmlMethodTests {
    /// A handler over the tiny model and its running engine.
    private static func run<Result>(
        capacity: CapacityPolicy = .checkpoint,
        _ body: (RequestHandler, LoadedModel, LabmlFixture) async throws -> Result
    ) async throws -> Result {
        let fixture = try LabmlFixture(.tiny)
        let loaded = try fixture.load()
        var configuration = EngineConfiguration()
        configuration.capacityPolicy = capacity
        let tokenizer = try Tokenizer.find(in: fixture.model.directory)
        let engine = InferenceEngine(
            model: loaded.model,
            experts: loaded.experts,
            tokenizer: tokenizer,
            configuration: configuration,
            logger: quietLogger
        )
        let reader = RequestReader(
            tokenizer: tokenizer,
            model: loaded.checkpoint.configuration,
            limits: RequestLimits(),
            batchSlots: 32
        )
        let receipts = ReceiptMaker(
            fingerprint: loaded.checkpoint.fingerprint,
            model: loaded.checkpoint.configuration,
            gatewayWeights: loaded.model.weightType,
            rowType: .float32,
            capacity: capacity,
            expertWeights: { [.float32] }
        )
        let life = Task { try await engine.run() }
        let outcome: Swift.Result<Result, any Error>
        do {
            let handler = RequestHandler(reader: reader, engine: engine, receipts: receipts)
            outcome = .success(try await body(handler, loaded, fixture))
        } catch {
            outcome = .failure(error)
        }
        life.cancel()
        _ = await life.result
        return try outcome.get()
    }

    private static func logprobs(_ logits: FloatMatrix, _ targets: [UInt32]) -> [Double] {
        targets.enumerated()
            .map { row, target in
                let values = logits.row(row).map { Double($0) }
                let most = values.max() ?? 0
                return values[Int(target)] - most - log(values.reduce(0) { $0 + exp($1 - most) })
            }
    }

    @Test("Score gives the log-probabilities of a prompt, and of what follows it")
    func scores() async throws {
        try await Self.run { handler, loaded, fixture in
            let tokens = fixture.goldens.sequences[0].map { UInt32($0) }
            var record = RoutingRecord()
            let input = DecoderInput(cache: DecoderCache(loaded.model), tokens: fixture.goldens.sequences[0])
            let logits = try loaded.model.decode(
                [input],
                experts: loaded.experts,
                options: StepOptions(logits: .all),
                record: &record
            )
            let expected = Self.logprobs(logits, Array(tokens.dropFirst()))
            let own = try await handler.score(ScoreRequest(input: .tokenIDs(tokens)), .init())
            #expect(own.logprobs.map(\.tokenID) == Array(tokens.dropFirst()))
            #expect(zip(own.logprobs, expected).allSatisfy { abs(Double($0.logprob) - $1) < 1e-5 })
            // Cut anywhere, the target has the bits that it has in the whole.
            for cut in [1, 7, tokens.count - 1] {
                let request = ScoreRequest(
                    input: .tokenIDs(Array(tokens.prefix(cut))),
                    target: .tokenIDs(Array(tokens.dropFirst(cut)))
                )
                let part = try await handler.score(request, .init())
                #expect(
                    part.logprobs.map(\.logprob.bitPattern)
                        == own.logprobs.suffix(tokens.count - cut).map(\.logprob.bitPattern)
                )
            }
            let several = try await handler.score(
                ScoreRequest(inputs: [ScoreInput(input: .tokenIDs(tokens)), ScoreInput(input: .tokenIDs([1, 2]))]),
                .init()
            )
            #expect(several.results[0].logprobs == own.logprobs && several.results[1].logprobs.count == 1)
        }
    }

    @Test("Encode gives the last hidden states of all tokens")
    func encodes() async throws {
        try await Self.run { handler, loaded, fixture in
            let tokens = fixture.goldens.sequences[1]
            let response = try await handler.encode(
                EncodeRequest(input: .tokenIDs(tokens.map { UInt32($0) })),
                .init()
            )
            var record = RoutingRecord()
            let run = try PrefillRun(loaded.model, inputs: [tokens], experts: loaded.experts)
            while !run.isFinished { try run.advance(record: &record) }
            let hidden = run.result()[0].hidden
            #expect(response.hiddenStates?.shape == [UInt32(tokens.count), 24])
            #expect(response.hiddenStates?.data == hidden.elements.withUnsafeBytes { Array($0) })
            #expect(response.encoderRoutes == nil)
            let logits = loaded.model.logits(ofFinal: hidden, rows: 0..<tokens.count)
            #expect(
                relativeDistance(
                    Array(logits.elements),
                    Array(try fixture.golden("batch.logits")[tokens.count * 18..<2 * tokens.count * 18])
                ) < 2e-5
            )
        }
    }

    @Test("a generation's routes are those of its prompt and its tokens, and scoring along them gives its bits")
    func routes() async throws {
        try await Self.run { handler, _, fixture in
            let prompt = fixture.goldens.sequences[2].prefix(9).map { UInt32($0) }
            var request = GenerateRequest(input: .tokenIDs(prompt), parameters: .init(), returnRoutes: true)
            request.parameters?.maxNewTokens = 6
            request.parameters?.topLogprobs = 2
            let response = try await handler.generate(request, .init())
            let generation = response.generations[0]
            let routes = try #require(generation.decoderRoutes)
            #expect(response.encoderRoutes == nil && routes.tokens == 9 + 6 - 1 && routes.layers == [0, 1, 2])
            #expect(response.usage?.routedTokens == UInt64(14 * 3) && response.usage?.inputTokens == 9)
            var score = ScoreRequest(input: .tokenIDs(prompt), target: .tokenIDs(generation.tokenIDs))
            score.decoderRoutes = routes
            score.returnRoutes = true
            score.returnRouterLosses = true
            let scored = try await handler.score(score, .init())
            #expect(scored.logprobs.map(\.logprob.bitPattern) == generation.logprobs.map(\.logprob.bitPattern))
            #expect(scored.decoderRoutes == routes && scored.encoderRoutes == nil)
            #expect(scored.routerLosses?.layers.count == 3)
            // A prompt of one token has no pass before its first step.
            request.input = .tokenIDs([4])
            let short = try await handler.generate(request, .init())
            #expect(short.generations[0].decoderRoutes?.tokens == 6)
        }
    }

    @Test("beams and several sequences go on from one prompt")
    func searches() async throws {
        try await Self.run { handler, _, fixture in
            let prompt = fixture.goldens.sequences[0].prefix(8).map { UInt32($0) }
            var request = GenerateRequest(input: .tokenIDs(prompt), parameters: .init())
            request.parameters?.maxNewTokens = 5
            request.parameters?.numBeams = 3
            request.parameters?.numReturnSequences = 3
            let beams = try await handler.generate(request, .init())
            #expect(beams.generations.count == 3)
            for generation in beams.generations {
                let score = try await handler.score(
                    ScoreRequest(input: .tokenIDs(prompt), target: .tokenIDs(generation.tokenIDs)),
                    .init()
                )
                #expect(abs(score.totalLogprob / 5 - generation.score) < 1e-4)
            }
            // The prompt counts in lengths, and its tokens count as used.
            request.parameters = .init()
            request.parameters?.maxLength = 10
            #expect(try await handler.generate(request, .init()).generations[0].tokenIDs.count == 2)
            request.parameters?.maxLength = 8
            let error = await rpcError { _ = try await handler.generate(request, .init()) }
            #expect(error?.message.contains("no room after the input's 8 tokens") == true)
        }
    }

    @Test("requests that mean an encoder, or characters that the model lacks, are refused by name")
    func refusals() async throws {
        try await Self.run { handler, _, _ in
            var prefixed = GenerateRequest(input: .text("abc"))
            prefixed.decoderPrefix = .text("a")
            var started = GenerateRequest(input: .text("abc"), parameters: .init())
            started.parameters?.decoderStartTokenID = 1
            let generations: [(GenerateRequest, [String])] = [
                (prefixed, ["decoder_prefix", "no encoder"]), (started, ["decoder_start_token_id", "no encoder"]),
                (GenerateRequest(input: .text("ab\u{E4}c")), ["text", "\u{E4}", "U+00E4", "place 2", "18 characters"]),
                (GenerateRequest(input: .text("")), ["text is empty"]),
                (GenerateRequest(input: .tokenIDs([])), ["input_ids.ids is empty", "one token"]),
                (GenerateRequest(input: .tokenIDs([18])), ["input_ids.ids[0] is 18", "17"]),
                (GenerateRequest(), ["input"]),
            ]
            for (request, words) in generations {
                let error = await rpcError { _ = try await handler.generate(request, .init()) }
                #expect(error?.code == .invalidArgument)
                for word in words { #expect(error?.message.contains(word) == true, "\(error?.message ?? "none")") }
            }
            let encoded = await rpcError {
                _ = try await handler.encode(EncodeRequest(input: .text("ab"), returnRoutes: true), .init())
            }
            #expect(encoded?.message.contains("return_routes") == true)
            let lone = await rpcError { _ = try await handler.score(ScoreRequest(input: .text("a")), .init()) }
            #expect(lone?.message.contains("the input has 1 token") == true)
            let routes = ScoreRequest(input: .text("ab"), encoderRoutes: Routes())
            let given = await rpcError { _ = try await handler.score(routes, .init()) }
            #expect(given?.message.contains("encoder_routes") == true)
        }
    }

    @Test(
        "receipts are replayed to the same bits, with labml's capacity and without",
        arguments: [
            CapacityPolicy.checkpoint, .floor(1.2, .tokens), .floor(0.5, .drawn(seed: 7)),
        ]
    )
    func receipts(capacity: CapacityPolicy) async throws {
        let fixture = try LabmlFixture(.tiny)
        let receipts = try await Self.run(capacity: capacity) { handler, _, fixture in
            try await withThrowingTaskGroup(of: Receipt?.self) { group in
                for (index, pair) in fixture.goldens.greedy.prefix(6).enumerated() {
                    group.addTask {
                        var request = GenerateRequest(
                            input: .tokenIDs(pair[0]),
                            parameters: .init(),
                            returnReceipt: true
                        )
                        request.parameters?.maxNewTokens = 5
                        request.parameters?.numBeams = index == 0 ? 2 : 1
                        return try await handler.generate(request, .init()).receipt
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
        }
        let model = try #require(receipts.first??.model)
        #expect(model.capacity == capacity.settingText)
        let replay = try ReceiptReplay(
            model,
            configuration: LocalGatewayConfiguration(modelDirectory: fixture.model.directory),
            logger: quietLogger
        )
        var dropped = 0
        try await replay.whileRunning {
            for receipt in receipts {
                let receipt = try #require(receipt)
                dropped += receipt.drops.count
                #expect(await replay.verify(receipt) == .verified)
            }
        }
        #expect((dropped > 0) == capacity.isShared)
    }

    @Test("a strict request ends where a host is missing, and another keeps its residual")
    func lostHost() async throws {
        let fixture = try LabmlFixture(.tiny)
        try await withHosts(fixture.model, pools: 2) { hosts, pools in
            try await withGateway(pools, modelDirectory: fixture.model.directory) { _, channel in
                await hosts[1].kill()
                var request = GenerateRequest(input: .tokenIDs([1, 2, 3, 4, 5, 6, 7, 8]), parameters: .init())
                request.parameters?.maxNewTokens = 8
                let response = try await channel.generate(request)
                #expect(response.generations[0].tokenIDs.count == 8)
                let dropped = try #require(response.usage?.dropped)
                #expect(!dropped.isEmpty && dropped.allSatisfy { $0.stack == .decoder && $0.reason != .capacity })
                request.dropPolicy = SwitchyardProtos.DropPolicy(strict: true)
                let error = await rpcError { _ = try await channel.generate(request) }
                #expect(error?.code == .unavailable || error?.code == .deadlineExceeded, "\(String(describing: error))")
            }
        }
    }
}
