// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
public import Checkpoints
public import Logging
internal import RPCCore
internal import Receipts
internal import ServiceKit
internal import SwitchModel
public import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels
internal import Tokenization

/// What a replay says about a receipt.
public enum ReceiptVerdict: Sendable, Hashable {
    /// The same bits came out.
    case verified
    /// Something else came out, or the receipt contradicts itself.
    case differs(ReceiptDifference)
    /// The receipt cannot be replayed, for the reason in words.
    case unusable(String)
}

/// A model in this process that computes the requests of receipts again.
///
/// Which weights, rows and capacity it takes a receipt says; a replay is for all receipts whose ``ReceiptModel`` is the same.
/// Rows that a receipt says were dropped by hosts are dropped again. So are rows over a capacity that is counted over all
/// requests of a step (`factor:NUMBER` and `floor:NUMBER`), since the receipt of one request does not tell what the others were.
public final class ReceiptReplay: Sendable {
    private let stated: ReceiptModel
    private let capacity: CapacityPolicy
    private let engine: InferenceEngine
    private let reader: RequestReader
    private let maker: ReceiptMaker

    /// Loads a model as a receipt says.
    ///
    /// - Parameters:
    ///   - stated: What the receipt says of the model.
    ///   - configuration: The folder with the whole checkpoint, overrides, adapter and threads; `storage` and `expertStorage` are
    ///     the receipt's.
    ///   - logger: Logs failures.
    ///   - progress: Receives loading progress.
    /// - Throws: ``GatewayError`` where the folder is a part of a model, or where the receipt names what no gateway has;
    ///   `CheckpointError`, `ModelError` and `TokenizerError` where it cannot be loaded.
    public init(
        _ stated: ReceiptModel,
        configuration: LocalGatewayConfiguration,
        logger: Logger,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        guard let capacity = GatewaySettings.capacityPolicy(stated.capacity), capacity.settingText == stated.capacity
        else {
            throw ReceiptError(
                "model.capacity",
                "is \"\(stated.capacity.prefix(80))\"; it must be \(GatewaySettings.table.capacity.definition.allowed)"
            )
        }
        var checkpoint = try Checkpoint.open(
            configuration.modelDirectory,
            overrides: configuration.modelOverrides,
            adapter: configuration.adapterDirectory,
            progress: progress
        )
        if checkpoint.configuration.hasExperts, checkpoint.configuration.expertCapacity != Int(stated.expertCapacity) {
            checkpoint = try Checkpoint.open(
                configuration.modelDirectory,
                overrides: configuration.modelOverrides.merging(["expert_capacity": "\(stated.expertCapacity)"]) { $1 },
                adapter: configuration.adapterDirectory,
                progress: progress
            )
        }
        try LocalGateway.requireWhole(checkpoint)
        try checkpoint.validate()
        let tokenizer = try Gateway.tokenizer(of: checkpoint, logger: logger)
        let pool = WorkPool(threads: configuration.threads)
        let model = try SwitchTransformer(
            checkpoint: checkpoint,
            pool: pool,
            storage: try Self.storage(
                stated.gatewayWeights,
                "model.gateway_weights",
                of: checkpoint,
                Self.head(checkpoint)
            ),
            progress: progress
        )
        let experts = try Self.experts(stated, checkpoint, pool: pool, progress: progress)
        var options = EngineConfiguration()
        options.scheduler.batchSlots = SwitchModel.GenerationParameters.maximumWidth
        options.overlap = .never
        // What a capacity over a step's group dropped is given.
        options.capacityPolicy = capacity.isShared ? .unlimited : capacity
        var settings = checkpoint.configuration
        settings.generation = ReceiptRequest.settings(padToken: stated.padTokenID)
        self.stated = stated
        self.capacity = capacity
        self.engine = InferenceEngine(
            model: model,
            experts: experts.executor,
            tokenizer: tokenizer,
            configuration: options,
            logger: logger
        )
        self.reader = RequestReader(
            tokenizer: tokenizer,
            model: settings,
            limits: .local,
            batchSlots: options.scheduler.batchSlots
        )
        self.maker = ReceiptMaker(
            fingerprint: checkpoint.fingerprint,
            model: settings,
            gatewayWeights: model.weightType,
            rowType: stated.rowDType.type ?? .float32,
            capacity: capacity,
            expertWeights: { Set([experts.type].compactMap { $0 }) }
        )
    }

    /// Runs the engine while a closure runs; can be called once.
    ///
    /// - Parameter body: Verifies receipts.
    /// - Returns: The closure's result.
    /// - Throws: What the closure throws, and `ComputeThread.StartError` if the system refuses a thread.
    public func whileRunning<Result>(_ body: () async throws -> Result) async throws -> Result {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.engine.run() }
            let outcome: Swift.Result<Result, any Error>
            do {
                outcome = .success(try await body())
            } catch {
                outcome = .failure(error)
            }
            group.cancelAll()
            try await group.waitForAll()
            return try outcome.get()
        }
    }

    /// Computes a receipt's request again and compares; call it inside ``whileRunning(_:)``, for one receipt at a time.
    ///
    /// - Parameter receipt: A receipt of the model that this replay was loaded for.
    /// - Returns: The verdict.
    public func verify(_ receipt: Receipt) async -> ReceiptVerdict {
        do throws(ReceiptError) {
            try receipt.checkShape()
            try receipt.checkDigests()
        } catch {
            return .unusable("\(error)")
        }
        if let difference = self.modelDifference(receipt) ?? Self.brokenPolicy(receipt) { return .differs(difference) }
        do {
            return try await self.replay(receipt)
        } catch let error as RPCError {
            return .unusable("the receipt's request cannot be computed again: \(error.message)")
        } catch {
            return .unusable("the receipt's request cannot be computed again: \(error)")
        }
    }

    private func replay(_ receipt: Receipt) async throws -> ReceiptVerdict {
        guard var request = receipt.request else { return .unusable("the receipt's request is missing") }
        request.returnReceipt = true
        var work = try self.reader.generate(request, deadline: nil)
        // A policy has judged the drops already.
        work.dropPolicy = .allow
        if let error = self.foreignRequest(receipt, work) { return .unusable("\(error)") }
        let given = GivenDrops(receipt, takesCapacity: self.capacity.isShared)
        work.routing.encoderRoutes = given.encoder.flatMap { $0.tokenCount == work.input.count ? $0 : nil }
        work.routing.steps = given.steps
        for await event in try self.engine.submit(work).events {
            switch event {
            case .token: continue
            case .failed(let error): throw error
            case .finished(let result):
                return try self.verdict(receipt, work: work, result)
            }
        }
        return .unusable("the replay was stopped")
    }

    private func verdict(_ receipt: Receipt, work: EngineRequest, _ result: EngineResult) throws -> ReceiptVerdict {
        guard case .generations(let generations) = result.output else {
            return .unusable("the engine did not answer with generated text")
        }
        var withLogprobs = false
        if case .generate(let parameters, _) = work.work { withLogprobs = parameters.topLogprobs > 0 }
        let response = GenerateResponse(generations, usage: result.usage, withLogprobs: withLogprobs)
        let made = try self.maker.receipt(
            of: work,
            result,
            generations: response.generations,
            expertType: try self.maker.expertType()
        )
        // As it comes out of a message: protobuf does not tell -0 from 0.
        let replayed = try Receipt(serialized: made.serialized())
        return ReceiptComparison(stated: receipt, replayed: replayed).difference().map { .differs($0) } ?? .verified
    }

    // MARK: - What a receipt says besides its outputs

    /// The first way in which the receipt is of another model.
    private func modelDifference(_ receipt: Receipt) -> ReceiptDifference? {
        guard let stated = receipt.model else { return nil }
        guard stated == self.stated else {
            return ReceiptDifference("model", expected: stated, got: self.stated)
        }
        let own = self.maker.fingerprint.fingerprintText
        if stated.fingerprint != own {
            return ReceiptDifference("model.fingerprint", expected: stated.fingerprint, got: own)
        }
        return nil
    }

    /// A drop policy that the receipt's own drops break: no gateway would have answered.
    private static func brokenPolicy(_ receipt: Receipt) -> ReceiptDifference? {
        let lost = receipt.drops.count { $0.reason != .capacity }
        guard lost > 0, let policy = receipt.request?.dropPolicy, let routes = receipt.routes else { return nil }
        if policy.strict {
            return ReceiptDifference("drops", expected: "none lost by hosts, as drop_policy.strict is set", got: lost)
        }
        let entries = (routes.encoder?.experts.count ?? 0) + (routes.decoder?.experts.count ?? 0)
        guard policy.maxDroppedFraction > 0, Float(lost) / Float(max(entries, 1)) > policy.maxDroppedFraction else {
            return nil
        }
        return ReceiptDifference(
            "drops",
            expected: "at most \(policy.maxDroppedFraction) of \(entries) lost by hosts, as drop_policy says",
            got: lost
        )
    }

    /// What is wrong with a request that is not written as a gateway writes it.
    private func foreignRequest(_ receipt: Receipt, _ work: EngineRequest) -> ReceiptError? {
        guard var again = ReceiptRequest.message(work, model: self.reader.model) else { return nil }
        again.dropPolicy = receipt.request?.dropPolicy
        guard again != receipt.request else { return nil }
        return ReceiptError(
            "request",
            "is not written as a gateway writes it, with token ids and every parameter, so it was changed"
        )
    }

    // MARK: - Loading

    private static func experts(
        _ stated: ReceiptModel,
        _ checkpoint: Checkpoint,
        pool: WorkPool,
        progress: (@Sendable (WorkProgress) -> Void)?
    ) throws -> (executor: any ExpertExecutor, type: DType?) {
        guard let layer = checkpoint.configuration.sparseLayers.first else {
            return (try LocalExperts(checkpoint: checkpoint, pool: pool), nil)
        }
        guard let rowType = stated.rowDType.type, rowType.isRow else {
            throw ReceiptError(
                "model.row_dtype",
                "is \(ProtocolWords.name(stated.rowDType)); it must be FLOAT32 or BFLOAT16"
            )
        }
        let matrix: FeedForwardMatrix = checkpoint.configuration.gatedFeedForward ? .wi0 : .wi
        let role = TensorRole.expert(layer, expert: 0, matrix)
        let experts = try LocalExperts(
            checkpoint: checkpoint,
            pool: pool,
            storage: try Self.storage(stated.expertWeights, "model.expert_weights", of: checkpoint, role),
            progress: progress
        )
        let executor: any ExpertExecutor =
            rowType == .float32 ? experts : RoundedRows(experts: experts, rowType: rowType)
        return (executor, experts.weightType)
    }

    private static func head(_ checkpoint: Checkpoint) -> TensorRole {
        checkpoint.configuration.tiedEmbeddings ? .sharedEmbedding : .lmHead
    }

    /// How weights are kept so that they have the stated type: as they are in the checkpoint where that gives it.
    private static func storage(
        _ stated: WireDType,
        _ field: String,
        of checkpoint: Checkpoint,
        _ role: TensorRole
    ) throws -> WeightStorage {
        let type = stated.type
        if let type, WeightStorage.checkpoint.packedDType(for: try checkpoint.tensor(role).dtype) == type {
            return .checkpoint
        }
        switch type {
        case .float32: return .float32
        case .bfloat16: return .bfloat16
        case .int8: return .int8
        default:
            throw ReceiptError(field, "is \(ProtocolWords.name(stated)); it must be FLOAT32, BFLOAT16 or INT8")
        }
    }
}
