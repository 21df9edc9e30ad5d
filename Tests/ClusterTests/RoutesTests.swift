// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

/// What the routers did, asked of a cluster of real processes, and told to it again.
@Suite("Routes of a cluster", .serialized)
struct RoutesTests {
    /// One generation to replay.
    private struct Replayed: Sendable {
        var input: String
        var generation: Generation
        var encoder: Routes?
    }

    /// Requests of every kind that has log-probabilities: greedy, sampled and beams.
    private static func requests() throws -> [GenerateRequest] {
        let prompts = try TestCluster.prompts()
        return (0..<100)
            .map { index in
                var parameters = GenerationParameters()
                parameters.maxNewTokens = UInt32(4 + index % 20)
                switch index % 4 {
                case 0:
                    parameters.repetitionPenalty = 1.3
                    parameters.topLogprobs = 2
                case 1, 2:
                    parameters.doSample = true
                    parameters.temperature = 1.5
                    parameters.seed = UInt64(index + 1)
                    parameters.topLogprobs = 1
                    parameters.numReturnSequences = 2
                default:
                    parameters.numBeams = 3
                    parameters.numReturnSequences = 3
                }
                return GenerateRequest(
                    input: .text(prompts[index % prompts.count].prompt),
                    parameters: parameters,
                    returnRoutes: true
                )
            }
    }

    @Test("replayed: 200 generations on two hosts, every log-probability equal bit for bit")
    func replay() async throws {
        let requests = try Self.requests()
        try await TestCluster.run(pools: 2) { client, _ in
            var all: [Replayed] = []
            try await withThrowingTaskGroup(of: [Replayed].self) { group in
                for (index, request) in requests.enumerated() {
                    // A few at a time, so that steps have several sequences and the queue has room.
                    if index >= 6 { all += try await group.next() ?? [] }
                    group.addTask {
                        guard case .text(let input) = request.input else { return [] }
                        let response = try await client.generate(request)
                        return response.generations.map {
                            Replayed(input: input, generation: $0, encoder: response.encoderRoutes)
                        }
                    }
                }
                for try await replayed in group { all += replayed }
            }
            #expect(all.count == 200)
            var tokens = 0
            var beams = 0
            for item in all {
                let generation = item.generation
                let routes = try #require(generation.decoderRoutes)
                #expect(routes.tokens == UInt32(generation.tokenIDs.count))
                #expect(routes.layers.count == 2 && routes.experts.count == generation.tokenIDs.count * 2 * 2)
                let score = try await client.score(
                    ScoreRequest(
                        input: .text(item.input),
                        target: .tokenIDs(generation.tokenIDs),
                        returnRoutes: true,
                        encoderRoutes: item.encoder,
                        decoderRoutes: routes
                    )
                )
                #expect(score.logprobs.count == generation.tokenIDs.count)
                if generation.logprobs.isEmpty {
                    // A beam search returns its log-probabilities added up in float32, divided by their number.
                    let sum = score.logprobs.reduce(Float(0)) { $0 + $1.logprob }
                    let mean = sum / Float(score.logprobs.count)
                    #expect(mean.bitPattern == generation.score.bitPattern)
                    beams += 1
                } else {
                    let expected = generation.logprobs.map(\.logprob.bitPattern)
                    #expect(score.logprobs.map(\.logprob.bitPattern) == expected)
                }
                tokens += score.logprobs.count
                #expect(score.decoderRoutes == routes)
                #expect(score.encoderRoutes == item.encoder)
            }
            #expect(beams == 75)
            #expect(tokens == all.reduce(0) { $0 + $1.generation.tokenIDs.count })
        }
    }

    /// What may come before the generated tokens: ids with and without a start token, a text, or nothing; and a first
    /// token that is given.
    private static let prefixes: [(prefix: ModelInput?, forced: UInt32?)] = [
        (.tokenIDs([0, 54, 900]), nil), (.tokenIDs([2_047, 31, 7, 1_200, 16]), nil), (.text("Now is the winter"), nil),
        (.tokenIDs([700]), 45), (nil, 300), (nil, nil),
    ]

    @Test(
        "replayed after a decoder prefix, a forced first token and another start token, bit for bit",
        arguments: [[], ["--override", "decoder_start_token_id=500"]]
    )
    func replayAfterPrefix(gatewayArguments: [String]) async throws {
        let prompts = try TestCluster.prompts()
        try await TestCluster.run(pools: 2, gatewayArguments: gatewayArguments) { client, _ in
            let start: UInt32 = gatewayArguments.isEmpty ? 0 : 500
            var first: Set<UInt32> = []
            for (index, (prefix, forced)) in Self.prefixes.enumerated() {
                var fed = try await Self.tokens(of: prefix, client)
                // A prefix may begin with the start token, which is none of what is scored.
                if fed.first == start { fed.removeFirst() }
                let input = ModelInput.text(prompts[index % prompts.count].prompt)
                for var parameters in Self.modes(seed: UInt64(index + 3), forced: forced) {
                    parameters.maxNewTokens = UInt32(5 + index)
                    let request = GenerateRequest(
                        input: input,
                        parameters: parameters,
                        decoderPrefix: prefix,
                        returnRoutes: true
                    )
                    let generation = try await Self.checkReplay(request, after: fed, client)
                    if forced != nil && prefix == nil { #expect(generation.tokenIDs.first == forced) }
                    first.formUnion(generation.tokenIDs.prefix(1))
                }
            }
            #expect(first.count > 3, "the prefixes must matter")
        }
    }

    /// The ids of a prefix, as the decoder gets them.
    private static func tokens(of prefix: ModelInput?, _ client: GatewayClient) async throws -> [UInt32] {
        switch prefix {
        case .tokenIDs(let ids): ids
        case .text(let text): try await client.encode(EncodeRequest(input: .text(text))).tokenIDs.dropLast()
        case nil: []
        }
    }

    /// Greedy search, sampling and beams.
    private static func modes(seed: UInt64, forced: UInt32?) -> [GenerationParameters] {
        var greedy = GenerationParameters(topLogprobs: 1)
        greedy.forcedBosTokenID = forced.map { TokenIDs(ids: [$0]) }
        var sampling = greedy
        sampling.doSample = true
        sampling.seed = seed
        // A forced token's score in a beam search is zero, which is not what the model gives it.
        return [greedy, sampling] + (forced == nil ? [GenerationParameters(numBeams: 3)] : [])
    }

    /// Generates, scores what was generated after the same tokens and on its way, and compares the log-probabilities.
    private static func checkReplay(
        _ request: GenerateRequest,
        after fed: [UInt32],
        _ client: GatewayClient
    ) async throws -> Generation {
        let response = try await client.generate(request)
        let generation = try #require(response.generations.first)
        let routes = try #require(generation.decoderRoutes)
        #expect(routes.tokens == UInt32(fed.count + generation.tokenIDs.count))
        let score = try await client.score(
            ScoreRequest(
                input: request.input,
                target: .tokenIDs(fed + generation.tokenIDs),
                returnRoutes: true,
                encoderRoutes: response.encoderRoutes,
                decoderRoutes: routes
            )
        )
        #expect(score.decoderRoutes == routes)
        let own = score.logprobs.dropFirst(fed.count).map(\.logprob)
        #expect(own.count == generation.tokenIDs.count)
        if generation.logprobs.isEmpty {
            let mean = own.reduce(Float(0), +) / Float(own.count)
            #expect(mean.bitPattern == generation.score.bitPattern)
        } else {
            #expect(own.map(\.bitPattern) == generation.logprobs.map(\.logprob.bitPattern))
        }
        return generation
    }

    @Test("that do not fit are refused by name; losses and logits come if asked for")
    func score() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 2) { client, _ in
            let input = ModelInput.text(prompt.prompt)
            let generated = try await client.generate(GenerateRequest(input: input, returnRoutes: true))
            let generation = try #require(generated.generations.first)
            let target = ModelInput.tokenIDs(generation.tokenIDs)
            let routes = try #require(generation.decoderRoutes)
            func refusal(_ change: (inout Routes) -> Void) async -> String {
                var wrong = routes
                change(&wrong)
                do {
                    _ = try await client.score(ScoreRequest(input: input, target: target, decoderRoutes: wrong))
                    return ""
                } catch {
                    return "\(error)"
                }
            }
            #expect(await refusal { $0.stack = .encoder }.contains("decoder_routes.stack is encoder"))
            #expect(await refusal { $0.layers[0] += 1 }.contains("decoder_routes names the sparse layers [decoder"))
            #expect(await refusal { $0.tokens -= 1 }.contains("decoder_routes.experts has"))
            #expect(await refusal { $0.experts[1] = 1 }.contains("decoder_routes sends token 0 to expert"))
            #expect(await refusal { $0.dropReasons = [9] }.contains("decoder_routes.drop_reasons has 1 bytes"))
            let entries = routes.experts.count / 2
            let unknown = [UInt8](repeating: 9, count: entries)
            #expect(await refusal { $0.dropReasons = unknown }.contains("decoder_routes.drop_reasons[0] is 9"))

            // Dropped tokens are replayed as dropped: another answer, counted, and no loss that a strict policy minds.
            var dropped = routes
            dropped.dropReasons = [UInt8](repeating: UInt8(WireDropReason.timeout.rawValue), count: entries)
            let plain = try await client.score(
                ScoreRequest(input: input, target: target, returnRouterLosses: true, returnLogits: true)
            )
            let degraded = try await client.score(
                ScoreRequest(
                    input: input,
                    target: target,
                    dropPolicy: DropPolicy(strict: true),
                    decoderRoutes: dropped
                )
            )
            #expect(degraded.totalLogprob != plain.totalLogprob)
            #expect(degraded.usage?.dropped.reduce(0) { $0 + $1.tokens } == UInt64(entries))

            let logits = try #require(plain.logits)
            let model = try await client.describeModel()
            #expect(logits.shape == [UInt32(generation.tokenIDs.count), model.vocabularySize])
            #expect(logits.data.count == generation.tokenIDs.count * Int(model.vocabularySize) * 4)
            let losses = try #require(plain.routerLosses)
            #expect(losses.layers.count == model.sparseLayers.count)
            #expect(losses.layers.allSatisfy { $0.loadBalancingLoss > 0 && $0.zLoss > 0 })
            #expect(losses.transformersEncoderAuxLoss > 0 && losses.transformersDecoderZLoss > 0)

            // Encode: the recorded way, and another one.
            let encoded = try await client.encode(EncodeRequest(input: input, returnRoutes: true))
            let own = try #require(encoded.encoderRoutes)
            #expect(own == generated.encoderRoutes)
            let again = try await client.encode(EncodeRequest(input: input, encoderRoutes: own))
            #expect(again.hiddenStates == encoded.hiddenStates)
            var moved = own
            moved.experts[0] = (moved.experts[0] + 1) % 8
            let other = try await client.encode(EncodeRequest(input: input, encoderRoutes: moved))
            #expect(other.hiddenStates != encoded.hiddenStates)
        }
    }

    @Test("are printed by generate --routes, as tables and as JSON")
    func command() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        let local = ["generate", "--local", TestCluster.miniature, "--threads", "1", "--routes", prompt.prompt]
        let table = try await Commands.run(TestCluster.executable, local)
        #expect(table.status == 0, "\(table.errors)")
        #expect(table.text.contains("encoder 1") && table.text.contains("decoder 3"))
        #expect(table.text.split(separator: "\n").count > prompt.tokenIDs.count)
        let json = try await Commands.run(TestCluster.executable, local + ["--json"])
        struct Way: Decodable {
            var layers: [Int]
            var experts: [[Int]]
            var probabilities: [[Double]]
        }
        struct Answer: Decodable { var decoderRoutes: Way }
        struct Report: Decodable {
            var encoderRoutes: Way
            var generations: [Answer]
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let report = try decoder.decode(Report.self, from: Data(json.text.utf8))
        let way = try #require(report.generations.first).decoderRoutes
        #expect(way.experts.count == prompt.tokenIDs.count)
        #expect(way.experts.allSatisfy { $0.count == way.layers.count && $0.allSatisfy((0..<8).contains) })
        #expect(way.probabilities.allSatisfy { $0.allSatisfy { $0 > 1.0 / 8 && $0 <= 1 } })
        #expect(report.encoderRoutes.experts.count > 1)
    }
}
