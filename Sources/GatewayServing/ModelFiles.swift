// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import ExpertPooling
internal import Logging
internal import SwitchModel
internal import SwitchyardTypes
internal import Tokenization

/// What a gateway reads of a model's folder before it loads weights: everything that can be wrong there.
struct ModelFiles {
    /// The whole checkpoint or its gateway part, complete.
    let checkpoint: Checkpoint
    /// Which pools hold the experts; nil where the folder does not say.
    let placement: Placement?
    /// Nil where the model has none.
    let tokenizer: Tokenizer?

    /// Opens and checks the files.
    ///
    /// - Parameters:
    ///   - configuration: The gateway's configuration.
    ///   - logger: Takes what is unusual about the model.
    ///   - progress: Receives loading progress.
    /// - Throws: ``GatewayError``, `CheckpointError`, `ModelError`, `GenerationError` and `TokenizerError` that name the
    ///   file.
    init(
        _ configuration: GatewayConfiguration,
        logger: Logger,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        try configuration.validate()
        let directory = configuration.modelDirectory
        self.checkpoint = try Checkpoint.open(
            directory,
            overrides: configuration.modelOverrides,
            adapter: configuration.adapterDirectory,
            progress: progress
        )
        try self.checkpoint.validate()
        try ModelError.requireSupport(for: self.checkpoint.configuration)
        try GenerationParameters.check(
            settingsOf: self.checkpoint.configuration,
            widest: configuration.engine.scheduler.batchSlots
        )
        for note in self.checkpoint.notes { logger.notice("\(note)") }
        self.placement = try Placement.load(directory: directory, checkpoint: self.checkpoint)
        try self.placement?.check(configuration.cluster.pools)
        try Self.checkPools(configuration.cluster.pools, of: self.checkpoint)
        self.tokenizer = try Gateway.tokenizer(of: self.checkpoint, logger: logger)
    }

    /// Checks that a recorded checkpoint is still the one that was recorded, and says that it is served.
    ///
    /// - Throws: ``GatewayError`` naming both fingerprints.
    func check(against record: CheckpointFolder.Record, logger: Logger?) throws(GatewayError) {
        guard UInt64(record.fingerprint, radix: 16) == self.checkpoint.fingerprint else {
            throw GatewayError(
                .checkpoint,
                "\(record.checkpoint) was served with the fingerprint \(record.fingerprint), but \(self.checkpoint.directory) has "
                    + "\(self.checkpoint.fingerprint.fingerprintText); put the files back, or remove the record in the folder of checkpoints"
            )
        }
        logger?
            .notice(
                "serving the checkpoint of the last rollout in place of the model that the settings name",
                metadata: ["checkpoint": "\(record.checkpoint)", "fingerprint": "\(record.fingerprint)"]
            )
    }

    /// Checks that there are pools exactly where the model has experts.
    private static func checkPools(_ pools: [PoolSpecification], of checkpoint: Checkpoint) throws(GatewayError) {
        let model = checkpoint.configuration
        if model.hasExperts, pools.isEmpty {
            throw GatewayError(
                .configuration,
                "no expert pool is given, and \(checkpoint.directory) has experts in \(model.sparseLayers.count) layers; "
                    + "pass --pool NAME=HOST:PORT for each pool of the placement"
            )
        }
        if !model.hasExperts, let pool = pools.first {
            throw GatewayError(
                .configuration,
                "the pool \(pool.name) is given, but \(checkpoint.directory) (model_type \(model.family.rawValue)) has no "
                    + "experts, so the gateway serves it alone; leave out --pool"
            )
        }
    }
}

extension Gateway {
    /// Checks that a gateway could load its model: opens all files, and reads no weights but samples.
    ///
    /// - Parameter configuration: What to load and how to serve it.
    /// - Throws: What `init(configuration:logger:metrics:progress:)` would throw before it loads weights.
    public static func check(_ configuration: GatewayConfiguration) throws {
        let (configuration, record) = try configuration.recorded()
        let files = try ModelFiles(configuration, logger: Logger(label: "gateway") { _ in SwiftLogNoOpLogHandler() })
        if let record { try files.check(against: record, logger: nil) }
    }
}

/// Checks of what only a gateway reads, for the commands that handle a checkpoint before one starts.
public enum ServedModel {
    /// Checks a checkpoint's configuration, its settings of generation and its tokenizer.
    ///
    /// - Parameters:
    ///   - directory: The checkpoint's folder.
    ///   - overrides: Configuration keys to override.
    /// - Returns: Whether the model has a tokenizer; without one it takes ids only.
    /// - Throws: `CheckpointError`, `ModelError`, `GenerationError` or `TokenizerError` that names the file and the key.
    public static func check(_ directory: String, overrides: [String: String]) throws -> Bool {
        let configuration = try ModelConfiguration.load(directory: directory, overrides: overrides)
        try ModelError.requireSupport(for: configuration)
        try GenerationParameters.check(settingsOf: configuration)
        return try Tokenizer.find(in: directory) != nil
    }
}
