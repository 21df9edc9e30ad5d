// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
public import Checkpoints
public import Logging
internal import RPCCore
public import SwitchModel
public import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

/// What to load into this process, and how.
public struct LocalGatewayConfiguration: Sendable {
    /// The folder with the whole checkpoint.
    public var modelDirectory: String

    /// Configuration keys to override, and the values that replace the file's.
    public var modelOverrides: [String: String] = [:]

    /// The folder of a LoRA adapter to merge into the weights.
    public var adapterDirectory: String?

    /// How weights are kept in memory.
    public var storage = WeightStorage.checkpoint

    /// How the experts' weights are kept in memory.
    public var expertStorage = WeightStorage.checkpoint

    /// Threads that compute.
    public var threads = 1

    /// Creates the configuration of a model; everything else has its default.
    ///
    /// - Parameter modelDirectory: The folder with the whole checkpoint.
    public init(modelDirectory: String) {
        self.modelDirectory = modelDirectory
    }
}

/// A whole model in this process: answers requests as a gateway does, without expert hosts or a network.
///
/// Requests take the same path as in a ``Gateway``, from the model's defaults to the text, so the answers are equal.
/// Only the limits of requests are wider, since no other client waits for the model.
public final class LocalGateway: Sendable {
    /// The fingerprint of the checkpoint.
    public let fingerprint: UInt64

    /// The model and the limits of requests; all of its experts are here.
    public let model: ModelDescription

    private let engine: InferenceEngine
    private let handler: RequestHandler

    /// Loads a model.
    ///
    /// - Parameters:
    ///   - configuration: What to load, and how.
    ///   - logger: Logs failures.
    ///   - progress: Receives loading progress.
    /// - Throws: ``GatewayError`` where the folder is a part of a model or lacks experts; `CheckpointError`, `ModelError`
    ///   and `TokenizerError` where it cannot be loaded.
    public init(
        configuration: LocalGatewayConfiguration,
        logger: Logger,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        let checkpoint = try Checkpoint.open(
            configuration.modelDirectory,
            overrides: configuration.modelOverrides,
            adapter: configuration.adapterDirectory,
            progress: progress
        )
        try Self.requireWhole(checkpoint)
        try checkpoint.validate()
        try GenerationParameters.check(settingsOf: checkpoint.configuration)
        for note in checkpoint.notes { logger.notice("\(note)") }
        let tokenizer = try Gateway.tokenizer(of: checkpoint, logger: logger)
        let pool = WorkPool(threads: configuration.threads)
        var options = EngineConfiguration()
        options.scheduler.batchSlots = GenerationParameters.maximumWidth
        // Experts in this process are computed while the engine waits for them: there is no idle time to fill.
        options.overlap = .never
        let model = try SwitchTransformer(
            checkpoint: checkpoint,
            pool: pool,
            storage: configuration.storage,
            progress: progress
        )
        let experts = try LocalExperts(
            checkpoint: checkpoint,
            pool: pool,
            storage: configuration.expertStorage,
            progress: progress
        )
        let expertWeights = Set([experts.weightType].compactMap { $0 })
        self.fingerprint = checkpoint.fingerprint
        self.model = ModelDescription(
            checkpoint,
            name: ModelLane.name(of: checkpoint),
            weightType: model.weightType,
            limits: .local,
            batchSlots: options.scheduler.batchSlots
        )
        self.engine = InferenceEngine(
            model: model,
            experts: experts,
            tokenizer: tokenizer,
            configuration: options,
            logger: logger
        )
        self.handler = RequestHandler(
            reader: RequestReader(
                tokenizer: tokenizer,
                model: checkpoint.configuration,
                limits: .local,
                batchSlots: options.scheduler.batchSlots
            ),
            engine: self.engine,
            receipts: ReceiptMaker(
                fingerprint: checkpoint.fingerprint,
                model: checkpoint.configuration,
                gatewayWeights: model.weightType,
                rowType: .float32,
                capacity: options.capacityPolicy,
                expertWeights: { expertWeights }
            )
        )
    }

    /// The texts of tokens.
    public var tokens: TokenWords { TokenWords(tokenizer: self.handler.reader.tokenizer) }

    /// Runs the engine while a closure runs; can be called once.
    ///
    /// - Parameter body: Makes requests.
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

    /// Generates text; call it inside ``whileRunning(_:)``.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - timeout: How long the request may take; nil is unlimited.
    ///   - onToken: Takes each token as it is chosen; none comes in a beam search.
    /// - Returns: The generated sequences, best first, and what they cost.
    /// - Throws: `RPCError` with a gateway's status, and what `onToken` throws.
    public func generate(
        _ request: GenerateRequest,
        timeout: Duration? = nil,
        onToken: ((GeneratedToken) async throws -> Void)? = nil
    ) async throws -> GenerateResponse {
        let call = RequestHandler.Call(deadline: timeout.map { .now.advanced(by: $0) })
        return try await self.handler.generate(request, call, onToken: onToken)
    }

    /// Scores a target, or several; call it inside ``whileRunning(_:)``.
    ///
    /// - Parameters:
    ///   - request: The input and the target, or several of both.
    ///   - timeout: How long the request may take; nil is unlimited.
    /// - Returns: One log-probability for each token of the target.
    /// - Throws: `RPCError` with a gateway's status.
    public func score(_ request: ScoreRequest, timeout: Duration? = nil) async throws -> ScoreResponse {
        try await self.handler.score(request, RequestHandler.Call(deadline: timeout.map { .now.advanced(by: $0) }))
    }

    /// Runs the encoder; call it inside ``whileRunning(_:)``.
    ///
    /// - Parameters:
    ///   - request: The input, or several, and how to pool.
    ///   - timeout: How long the request may take; nil is unlimited.
    /// - Returns: The hidden states.
    /// - Throws: `RPCError` with a gateway's status.
    public func encode(_ request: EncodeRequest, timeout: Duration? = nil) async throws -> EncodeResponse {
        try await self.handler.encode(request, RequestHandler.Call(deadline: timeout.map { .now.advanced(by: $0) }))
    }

    /// Refuses parts of a model, whose tokens would all be dropped.
    static func requireWhole(_ checkpoint: Checkpoint) throws(GatewayError) {
        let directory = checkpoint.directory
        if let manifest = checkpoint.manifest {
            let content =
                switch manifest.kind {
                case .gateway: "everything but the experts"
                case .experts: "some experts and nothing else"
                }
            throw GatewayError(
                .checkpoint,
                "\(directory)/\(ShardManifest.fileName) says that this is part \(manifest.name) of \(manifest.source), "
                    + "with \(content); pass the whole checkpoint, or serve its parts with switchyard expert-host "
                    + "and switchyard gateway"
            )
        }
    }
}
