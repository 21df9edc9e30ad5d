// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Logging
internal import SwitchyardTypes
internal import Synchronization
internal import TensorKernels

/// The folders from which a host loads experts: parts of the same checkpoint.
struct HostShards: Sendable {
    /// The open folders, in the order in which they were given.
    let checkpoints: [Checkpoint]

    /// The first folder, for what all of them have in common.
    let first: Checkpoint

    /// Opens the folders of a configuration.
    ///
    /// - Parameters:
    ///   - configuration: The host's configuration.
    ///   - progress: Called after every weight file.
    /// - Throws: `CheckpointError` if a folder cannot be opened; ``ExpertHostError`` if they come from different
    ///   checkpoints.
    init(_ configuration: ExpertHostConfiguration, progress: (@Sendable (WorkProgress) -> Void)?) throws {
        var checkpoints: [Checkpoint] = []
        for directory in configuration.shardDirectories {
            let checkpoint = try Checkpoint.open(
                directory,
                overrides: configuration.modelOverrides,
                progress: progress
            )
            try checkpoint.validate()
            guard checkpoint.configuration.hasExperts else {
                throw ExpertHostError(
                    .configuration,
                    "\(directory) has no experts (model_type \(checkpoint.configuration.family.rawValue)); "
                        + "`switchyard gateway --model` serves it alone"
                )
            }
            if let first = checkpoints.first {
                try Self.check(checkpoint, against: first)
            }
            checkpoints.append(checkpoint)
        }
        guard let first = checkpoints.first else {
            throw ExpertHostError(.configuration, "no shard folder is given; pass --shard DIR")
        }
        self.checkpoints = checkpoints
        self.first = first
    }

    /// Whether weights are used from their mapped files.
    var isPacked: Bool { self.checkpoints.contains { $0.packing != nil } }

    /// The shards' names, each once, joined by commas.
    var name: String {
        var names: [String] = []
        for checkpoint in self.checkpoints {
            let name = checkpoint.manifest?.name ?? checkpoint.directory
            if !names.contains(name) {
                names.append(name)
            }
        }
        return names.joined(separator: ",")
    }

    /// Reads the packed parts once, from front to back, and compares every matrix with its checksum.
    ///
    /// Mapped files are read on first use; after this they are in memory, as long as the system has room. Parts that
    /// are not packed are read in any case.
    ///
    /// - Parameters:
    ///   - pool: Threads that share the reading.
    ///   - progress: Called after each matrix, on several threads.
    /// - Throws: `CheckpointError` for the first matrix that does not match its manifest.
    func prefault(pool: WorkPool, progress: (@Sendable (WorkProgress) -> Void)?) throws(CheckpointError) {
        for checkpoint in self.checkpoints where checkpoint.packing != nil {
            checkpoint.prefetchPacked()
            let names = checkpoint.packedNames
            let state = Mutex<(done: Int, failure: CheckpointError?)>((0, nil))
            pool.run(names.count) { range in
                for name in names[range] {
                    var failure: CheckpointError?
                    do throws(CheckpointError) {
                        try checkpoint.verifyPacked(name)
                    } catch {
                        failure = error
                    }
                    let (done, isStopped) = state.withLock { state in
                        state.done += 1
                        state.failure = state.failure ?? failure
                        return (state.done, state.failure != nil)
                    }
                    guard !isStopped else { return }
                    progress?(
                        WorkProgress(label: "Reading weights", completed: done, total: names.count, unit: .tensors)
                    )
                }
            }
            if let failure = state.withLock({ $0.failure }) { throw failure }
        }
    }

    private static func check(_ checkpoint: Checkpoint, against first: Checkpoint) throws(ExpertHostError) {
        guard checkpoint.fingerprint == first.fingerprint else {
            throw ExpertHostError(
                .mixedShards,
                "\(first.directory) comes from the checkpoint \(first.fingerprint.fingerprintText) and \(checkpoint.directory) "
                    + "from \(checkpoint.fingerprint.fingerprintText); give a host parts from one cut of a checkpoint"
            )
        }
        guard checkpoint.configuration == first.configuration else {
            throw ExpertHostError(
                .mixedShards,
                "\(first.directory) and \(checkpoint.directory) come from the checkpoint \(first.fingerprint.fingerprintText), but "
                    + "their configurations differ; cut the checkpoint again and copy whole parts"
            )
        }
    }
}

extension ExpertHost {
    /// Checks that a recorded checkpoint is still the one that was recorded, and says that it is served.
    static func check(_ shards: HostShards, against record: CheckpointFolder.Record, logger: Logger?) throws {
        guard UInt64(record.fingerprint, radix: 16) == shards.first.fingerprint else {
            throw ExpertHostError(
                .mixedShards,
                "\(record.checkpoint) was served with the fingerprint \(record.fingerprint), but \(shards.first.directory) has "
                    + "\(shards.first.fingerprint.fingerprintText); put the files back, or remove the record in the folder of checkpoints"
            )
        }
        logger?
            .notice(
                "serving the checkpoint of the last rollout in place of the shards that the settings name",
                metadata: ["checkpoint": "\(record.checkpoint)", "fingerprint": "\(record.fingerprint)"]
            )
    }

    /// Checks that a host could open its shards: reads their headers, and no weights but samples.
    ///
    /// - Parameter configuration: What to load and how to serve it.
    /// - Throws: What `init(configuration:logger:metrics:progress:)` would throw before it loads weights.
    public static func check(_ configuration: ExpertHostConfiguration) throws {
        try configuration.validate()
        let (configuration, record) = try configuration.recorded()
        let shards = try HostShards(configuration, progress: nil)
        if let record { try Self.check(shards, against: record, logger: nil) }
        guard shards.checkpoints.contains(where: { !$0.heldExperts.isEmpty }) else {
            throw ExpertHostError.noExperts(in: configuration)
        }
    }
}
