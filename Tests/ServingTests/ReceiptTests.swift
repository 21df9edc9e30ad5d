// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import ExpertPooling
import ExpertServing
import LossyExperts
import RPCCore
import Receipts
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

@testable import GatewayServing

/// A model in this process that answers with receipts, and may lose rows.
private struct Answerer {
    let engine: InferenceEngine
    let handler: RequestHandler

    init(
        loss: DroppingExperts.Loss? = nil,
        reason: SwitchyardTypes.DropReason = .timeout,
        capacity: CapacityPolicy = .checkpoint,
        overrides: [String: String] = [:]
    ) throws {
        let checkpoint = try Checkpoint.open(TestModel.miniature.directory, overrides: overrides)
        let pool = WorkPool(threads: 1)
        let model = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
        let local = try LocalExperts(checkpoint: checkpoint, pool: pool)
        var experts: any ExpertExecutor = local
        if let loss {
            experts = DroppingExperts(
                local,
                loss: loss,
                expertCount: checkpoint.configuration.expertCount,
                seed: 3,
                reason: reason
            )
        }
        var options = EngineConfiguration()
        options.capacityPolicy = capacity
        let tokenizer = try Tokenizer(directory: TestModel.miniature.directory)
        self.engine = InferenceEngine(
            model: model,
            experts: experts,
            tokenizer: tokenizer,
            configuration: options,
            logger: quietLogger
        )
        var limits = RequestLimits()
        limits.maxDroppedFraction = 1
        self.handler = RequestHandler(
            reader: RequestReader(
                tokenizer: tokenizer,
                model: checkpoint.configuration,
                limits: limits,
                batchSlots: options.scheduler.batchSlots
            ),
            engine: self.engine,
            receipts: ReceiptMaker(
                fingerprint: checkpoint.fingerprint,
                model: checkpoint.configuration,
                gatewayWeights: model.weightType,
                rowType: .float32,
                capacity: capacity,
                expertWeights: { Set([local.weightType].compactMap { $0 }) }
            )
        )
    }

    /// The receipts of requests that run side by side.
    func receipts(_ requests: [GenerateRequest]) async throws -> [Receipt] {
        let life = Task { try await self.engine.run() }
        defer { life.cancel() }
        return try await withThrowingTaskGroup(of: (Int, Receipt).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask {
                    let response = try await self.handler.generate(request, .init())
                    return (index, try #require(response.receipt))
                }
            }
            var receipts: [(Int, Receipt)] = []
            for try await receipt in group { receipts.append(receipt) }
            return receipts.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }
}

/// Verdicts about receipts of one model.
private func verdicts(_ receipts: [Receipt], overrides: [String: String] = [:]) async throws -> [ReceiptVerdict] {
    var configuration = LocalGatewayConfiguration(modelDirectory: TestModel.miniature.directory)
    configuration.modelOverrides = overrides
    let model = try #require(receipts.first?.model)
    let replay = try ReceiptReplay(model, configuration: configuration, logger: quietLogger)
    return try await replay.whileRunning {
        var verdicts: [ReceiptVerdict] = []
        // Over a file, as everybody else gets them.
        for receipt in receipts {
            let read = try ReceiptFile.receipt(Array(ReceiptFile.text(receipt).utf8))
            verdicts.append(await replay.verify(read))
        }
        return verdicts
    }
}

@Suite("Receipts", .serialized)
struct ReceiptTests {
    /// A request of each kind of search, with a receipt.
    static var requests: [GenerateRequest] {
        var greedy = GenerationParametersMessage()
        greedy.topLogprobs = 3
        greedy.repetitionPenalty = 1.4
        greedy.minNewTokens = 6
        greedy.noRepeatNgramSize = 2
        greedy.suppressTokens = TokenIDs(ids: [1356, 7])
        greedy.sequenceBias = SequenceBiases(
            biases: [
                SwitchyardProtos.SequenceBias(tokens: [5], bias: 3),
                .init(tokens: [9, 8], bias: -.greatestFiniteMagnitude),
            ]
        )
        greedy.badWordsIDs = TokenLists(lists: [TokenIDs(ids: [17, 4])])
        greedy.exponentialDecayLengthPenalty = .init(startIndex: 3, factor: 1.5)
        var draws = GenerationParametersMessage()
        draws.doSample = true
        draws.temperature = 1.7
        draws.topK = 0
        draws.topP = 0.95
        draws.minP = 0.001
        draws.numReturnSequences = 3
        draws.maxNewTokens = 9
        var beams = GenerationParametersMessage()
        beams.numBeams = 4
        beams.numReturnSequences = 2
        beams.earlyStopping = .never
        beams.lengthPenalty = -0.5
        var drawnBeams = beams
        drawnBeams.doSample = true
        drawnBeams.seed = 11
        drawnBeams.etaCutoff = 0.0001
        var groups = GenerationParametersMessage()
        groups.numBeams = 4
        groups.numBeamGroups = 2
        groups.diversityPenalty = 0.75
        var stops = GenerationParametersMessage()
        stops.stop = ["<extra_id_1>"]
        stops.skipScores = true
        let text = "Now is the winter of our <extra_id_0> Made glorious summer by this <extra_id_1> of York;"
        var all = [greedy, draws, beams, drawnBeams, groups, stops]
            .map { GenerateRequest(input: .text(text), parameters: $0, returnReceipt: true) }
        var prefixed = GenerateRequest(input: .tokenIDs([18, 2047, 32, 15, 731, 21, 1]), returnReceipt: true)
        prefixed.decoderPrefix = .text("<extra_id_0> king")
        all.append(prefixed)
        return all
    }

    @Test("answers of every search are verified, and their receipts say nothing of the text that was sent")
    func searches() async throws {
        let receipts = try await Answerer().receipts(Self.requests)
        for (index, verdict) in try await verdicts(receipts).enumerated() { #expect(verdict == .verified, "\(index)") }
        for receipt in receipts {
            #expect(receipt.drops.isEmpty)
            guard case .tokenIDs(let ids) = receipt.request?.input else {
                Issue.record("no ids")
                continue
            }
            #expect(receipt.routes?.encoder?.tokens == UInt32(ids.count))
            // Every row of every step, those of beams that were given up included.
            #expect(
                receipt.routes?.stepTokens.contains { $0 > 1 }
                    == (receipt.request?.parameters?.numBeams ?? 1 > 1
                        || receipt.generations.count > 1 || receipt.request?.decoderPrefix != nil)
            )
        }
    }

    @Test(
        "rows that hosts lost are dropped again, whatever the reason",
        arguments: [SwitchyardTypes.DropReason.timeout, .badReply]
    )
    func losses(reason: SwitchyardTypes.DropReason) async throws {
        let receipts = try await Answerer(loss: .rows(fraction: 0.25), reason: reason).receipts(Self.requests)
        #expect(
            receipts.allSatisfy { !$0.drops.isEmpty && $0.drops.allSatisfy { $0.reason == WireDropReason(reason) } }
        )
        for (index, verdict) in try await verdicts(receipts).enumerated() { #expect(verdict == .verified, "\(index)") }
        // Of the same request without one of its drops, something else follows.
        var less = receipts[0]
        less.drops.removeFirst()
        guard case .differs(let difference) = try await verdicts([less.sealed()])[0] else {
            Issue.record("a drop that was left out is not missed")
            return
        }
        #expect(difference.field.hasPrefix("routes.") || difference.field == "drops", "\(difference)")
    }

    @Test("rows over capacity are counted again; those over a capacity that requests share are taken as they were")
    func capacity() async throws {
        for dropped in ["zero", "pass"] {
            for policy in [CapacityPolicy.checkpoint, .factor(0.6)] {
                let overrides = ["expert_capacity": "1", "dropped_tokens": dropped]
                let answerer = try Answerer(loss: .rows(fraction: 0.1), capacity: policy, overrides: overrides)
                let receipts = try await answerer.receipts(Self.requests)
                #expect(receipts.contains { $0.drops.contains { $0.reason == .capacity } }, "\(policy)")
                let found = try await verdicts(receipts, overrides: ["dropped_tokens": dropped])
                for (index, verdict) in found.enumerated() {
                    #expect(verdict == .verified, "\(index) \(policy) \(dropped)")
                }
                guard policy == .checkpoint, let place = receipts[0].drops.firstIndex(where: { $0.reason == .capacity })
                else { continue }
                // A row that the capacity drops cannot be passed off as kept.
                var less = receipts[0]
                less.drops.remove(at: place)
                guard case .differs(let difference) = try await verdicts([less.sealed()], overrides: overrides)[0]
                else {
                    Issue.record("a drop for capacity that was left out is not missed")
                    continue
                }
                #expect(difference.field == "drops", "\(difference)")
                #expect(difference.got == "CAPACITY")
            }
        }
    }

    @Test("what was forged with new digests is found, and named")
    func forgeries() async throws {
        let receipts = try await Answerer().receipts(Self.requests)
        let forgeries: [(field: String, place: String, receipt: Int, change: (inout Receipt) -> Void)] = [
            ("generations[0].token_ids", "step 1", 0, { $0.generations[0].tokenIDs[1] ^= 1 }),
            ("the length of generations[0].token_ids", "", 0, { $0.generations[0].tokenIDs.append(1) }),
            ("generations[0].logprobs[2].logprob", "", 0, { $0.generations[0].logprobs[2].logprob.flip() }),
            ("generations[0].logprobs[2].top[1]", "", 0, { $0.generations[0].logprobs[2].top[1].tokenID += 1 }),
            ("generations[0].score", "", 2, { $0.generations[0].score.flip() }),
            ("generations[0].finish_reason", "", 0, { $0.generations[0].finishReason = .stop }),
            ("generations[0].text", "", 5, { $0.generations[0].text += " " }),
            ("the length of generations", "", 2, { $0.generations.removeLast() }),
            ("routes.encoder.experts", "encoder layer 1, token 3", 0, { $0.routes?.encoder?.experts[6] ^= 1 }),
            (
                "routes.decoder.probabilities", "step 2, decoder layer 3", 0,
                { $0.routes?.decoder?.probabilities[5].flip() }
            ),
            (
                "routes.step_tokens", "step 1", 1,
                {
                    $0.routes?.stepTokens[1] -= 1
                    $0.routes?.stepTokens[2] += 1
                }
            ),
            (
                "drops", "encoder layer 1, token 0", 0,
                {
                    $0.drops = [ReceiptDrop(stack: .encoder, token: 0, layer: 1, reason: .capacity)]
                }
            ),
            (
                "drops", "", 0,
                {
                    $0.request?.dropPolicy?.strict = true
                    $0.drops = [ReceiptDrop(stack: .decoder, token: 0, layer: 1, reason: .timeout)]
                }
            ),
            ("model.fingerprint", "", 0, { $0.model?.fingerprint = "0123456789abcdef" }),
        ]
        for (field, place, receipt, change) in forgeries {
            var forged = receipts[receipt]
            change(&forged)
            guard case .differs(let difference) = try await verdicts([forged.sealed()])[0] else {
                Issue.record("\(field) is not missed")
                continue
            }
            #expect(difference.field == field)
            #expect(difference.place.hasPrefix(place), "\(difference)")
        }
    }

    @Test("requests that no gateway would have written are refused in words")
    func foreignRequests() async throws {
        let receipt = try await Answerer().receipts([Self.requests[0]])[0]
        let changes: [(words: String, change: (inout Receipt) -> Void)] = [
            ("as a gateway writes it", { $0.request?.returnRoutes = true }),
            ("as a gateway writes it", { $0.request?.input = .text("Now is the winter") }),
            ("as a gateway writes it", { $0.request?.parameters?.numBeams = nil }),
            ("vocabulary ends", { $0.request?.input = .tokenIDs([1 << 30]) }),
            ("num_beams", { $0.request?.parameters?.numBeams = 100_000 }),
            ("the limit is", { $0.request?.input = .tokenIDs([UInt32](repeating: 5, count: (1 << 20) + 1)) }),
        ]
        for (words, change) in changes {
            var forged = receipt
            change(&forged)
            guard case .unusable(let reason) = try await verdicts([forged.sealed()])[0] else {
                Issue.record("\(words) is not said")
                continue
            }
            #expect(reason.contains(words), "\(reason)")
        }
        for (words, change): (String, (inout Receipt) -> Void) in [
            ("model.capacity", { $0.model?.capacity = "factor:1.50" }),
            ("model.gateway_weights", { $0.model?.gatewayWeights = .float16 }),
            ("model.row_dtype", { $0.model?.rowDType = .int8 }),
        ] {
            var forged = receipt
            change(&forged)
            let error = await #expect(throws: ReceiptError.self) { try await verdicts([forged.sealed()]) }
            #expect(error?.field == words)
        }
    }

    @Test(
        "a gateway's receipts name the types of weights and of rows on the wire",
        arguments: [DType.float32, .bfloat16]
    )
    func gateway(wire: DType) async throws {
        try await withHosts(TestModel.miniature, pools: 2) {
            $0.storage = .int8
        } _: { _, pools in
            try await withGateway(pools) {
                $0.cluster.wireType = wire
            } _: { _, channel in
                var receipts: [Receipt] = []
                for request in Self.requests {
                    receipts.append(try #require(try await channel.generate(request).receipt))
                }
                #expect(receipts[0].model?.expertWeights == .int8)
                #expect(receipts[0].model?.gatewayWeights == .bfloat16)
                #expect(receipts[0].model?.rowDType == (wire == .bfloat16 ? .bfloat16 : .float32))
                for (index, verdict) in try await verdicts(receipts).enumerated() {
                    #expect(verdict == .verified, "\(index)")
                }
                let plain = try await channel.generate(GenerateRequest(input: .text("Now")))
                #expect(plain.receipt == nil && plain.encoderRoutes == nil)
                // With other rows or weights than it says, something else comes out.
                var other = receipts[0]
                other.model?.expertWeights = .bfloat16
                guard case .differs = try await verdicts([other.sealed()])[0] else {
                    Issue.record("other weights are not missed")
                    return
                }
            }
        }
    }

    @Test("where hosts keep experts in two types, a receipt is refused, and other requests are not")
    func mixedTypes() async throws {
        let folder = try ShardCache.folder(of: .miniature, pools: 2)
        let one = try await RunningHost.start("\(folder)/pool-0") { $0.storage = .int8 }
        let other = try await RunningHost.start("\(folder)/pool-1") { $0.storage = .float32 }
        let pools = [("pool-0", one), ("pool-1", other)]
            .map { PoolSpecification(name: $0.0, targets: [.address(host: "127.0.0.1", port: $0.1.port)]) }
        try await withGateway(pools) { _, channel in
            let error = await rpcError { _ = try await channel.generate(Self.requests[0]) }
            #expect(error?.code == .failedPrecondition)
            #expect(error?.message.contains("in float32 and int8") == true, "\(error?.message ?? "")")
            var plain = Self.requests[0]
            plain.returnReceipt = false
            let answer = try await channel.generate(plain)
            #expect(answer.generations.count == 1)
        }
        await one.kill()
        await other.kill()
    }
}

extension Float {
    /// Changes the last bit.
    fileprivate mutating func flip() { self = Float(bitPattern: self.bitPattern ^ 1) }
}
