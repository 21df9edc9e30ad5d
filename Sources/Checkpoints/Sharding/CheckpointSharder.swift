// SPDX-License-Identifier: Apache-2.0

/// Cuts a checkpoint into a part for the gateway and a part for each expert pool.
public enum CheckpointSharder {
    /// The gateway part's folder in the output.
    public static let gatewayDirectory = "gateway"
    static let weightsFile = "model.safetensors"
    /// What the gateway part gets besides the weights, where the checkpoint has it.
    static let companionFiles = [
        ModelConfiguration.configurationFile, ModelConfiguration.generationFile, "spiece.model", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    ]
    /// What an expert part needs of them.
    static let expertCompanionFiles = [ModelConfiguration.configurationFile]

    /// Cuts a checkpoint.
    ///
    /// Makes `OUTPUT/placement.json`, `OUTPUT/gateway/` and `OUTPUT/pool-0/` through `pool-(N-1)/`. Expert `e` of every
    /// sparse layer goes to pool `e * N / experts`. Everything is written into a folder beside the output, which takes
    /// its place in one step when it is complete: an output folder that exists is whole.
    ///
    /// - Parameters:
    ///   - model: A whole checkpoint's folder.
    ///   - output: A folder that does not exist yet or is empty.
    ///   - pools: The number of expert parts, 1 through the number of experts.
    ///   - overrides: Configuration keys to override; the parts remember them.
    ///   - force: Whether an output of an earlier cut is replaced. Any other folder that holds something is refused
    ///     even so.
    ///   - progress: Called for every piece written.
    /// - Returns: Which pool holds which experts.
    /// - Throws: `CheckpointError` if the checkpoint is not whole, or the output cannot be written.
    @discardableResult
    public static func shard(
        model: String,
        output: String,
        pools: Int,
        overrides: [String: String] = [:],
        force: Bool = false,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws(CheckpointError) -> PlacementFile {
        let checkpoint = try Checkpoint.open(model, overrides: overrides, progress: progress)
        guard checkpoint.manifest == nil else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "is itself a part of a cut checkpoint; cut the whole one",
                file: model
            )
        }
        try checkpoint.validate()
        let experts = checkpoint.configuration.expertCount
        guard !checkpoint.configuration.sparseLayers.isEmpty else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "has no sparse layers under its configuration, and so nothing to cut",
                file: model
            )
        }
        guard pools >= 1, pools <= experts else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "cannot be cut into \(pools) pools; choose 1 through \(experts), its number of experts",
                file: model
            )
        }
        let placement = PlacementFile(
            fingerprint: checkpoint.fingerprint,
            source: HubCache.displayName(of: model),
            expertCount: experts,
            gateway: self.gatewayDirectory,
            pools: (0..<pools)
                .map { pool in
                    .init(
                        name: "pool-\(pool)",
                        directory: "pool-\(pool)",
                        experts: Array(self.experts(of: pool, pools: pools, experts: experts))
                    )
                }
        )
        let target = try OutputDirectory(output, model: model, force: force)
        do {
            var run = ShardRun(checkpoint, placement, overrides, progress: progress)
            try target.checkSpace(run.totalBytes)
            try run.write(into: target.temporary)
            try target.commit()
        } catch {
            target.discard()
            throw error
        }
        return placement
    }

    /// The experts `e` with `e * pools / experts == pool`.
    static func experts(of pool: Int, pools: Int, experts: Int) -> Range<Int> {
        func first(_ pool: Int) -> Int { (pool * experts + pools - 1) / pools }
        return first(pool)..<first(pool + 1)
    }
}

/// One cut in progress.
private struct ShardRun {
    private let checkpoint: Checkpoint
    private let placement: PlacementFile
    private let overrides: [String: String]
    private let progress: (@Sendable (WorkProgress) -> Void)?
    let totalBytes: Int
    private var writtenBytes = 0

    init(
        _ checkpoint: Checkpoint,
        _ placement: PlacementFile,
        _ overrides: [String: String],
        progress: (@Sendable (WorkProgress) -> Void)?
    ) {
        self.checkpoint = checkpoint
        self.placement = placement
        self.overrides = overrides
        self.progress = progress
        let configuration = checkpoint.configuration
        let gateway = configuration.gatewayRoles.compactMap { try? checkpoint.stored($0) }
        let experts = configuration.sparseLayers.flatMap { layer in
            (0..<configuration.expertCount)
                .flatMap { expert in
                    FeedForwardMatrix.allCases.compactMap { try? checkpoint.stored(.expert(layer, expert: expert, $0)) }
                }
        }
        self.totalBytes = (gateway + experts)
            .reduce(0) {
                $0 + (TensorView.byteCount(shape: $1.shape, dtype: $1.dtype) ?? 0)
            }
    }

    mutating func write(into root: String) throws(CheckpointError) {
        try FileSystem.writeJSON(self.placement, to: "\(root)/\(PlacementFile.fileName)")
        let gateway = "\(root)/\(self.placement.gateway)"
        try self.writePart(
            gateway,
            name: self.placement.gateway,
            kind: .gateway,
            roles: self.checkpoint.configuration.gatewayRoles,
            experts: [],
            companions: CheckpointSharder.companionFiles
        )
        try FileSystem.writeJSON(self.placement, to: "\(gateway)/\(PlacementFile.fileName)")
        try FileSystem.synchronize(gateway)
        for pool in self.placement.pools {
            let layers = self.checkpoint.configuration.sparseLayers
            try self.writePart(
                "\(root)/\(pool.directory)",
                name: pool.name,
                kind: .experts,
                roles: layers.flatMap { layer in
                    pool.experts.flatMap { expert in
                        FeedForwardMatrix.allCases.map { .expert(layer, expert: expert, $0) }
                    }
                },
                experts: layers.map { .init(layer: $0, experts: pool.experts) },
                companions: CheckpointSharder.expertCompanionFiles
            )
        }
        try FileSystem.synchronize(root)
    }

    private mutating func writePart(
        _ directory: String,
        name: String,
        kind: ShardManifest.Kind,
        roles: [TensorRole],
        experts: [ShardManifest.LayerExperts],
        companions: [String]
    ) throws(CheckpointError) {
        try FileSystem.createDirectory(directory)
        for file in companions where FileSystem.isFile("\(self.checkpoint.directory)/\(file)") {
            try FileSystem.copy("\(self.checkpoint.directory)/\(file)", to: "\(directory)/\(file)")
        }
        var stored: [String: StoredTensor] = [:]
        var views: [TensorView] = []
        for role in roles {
            let tensor = try self.checkpoint.stored(role).renamed(role.name)
            stored[role.name] = tensor
            views.append(tensor.view())
        }
        let start = self.writtenBytes
        var written = start
        let bytes = try SafetensorsWriter.write(
            views,
            to: "\(directory)/\(CheckpointSharder.weightsFile)",
            metadata: ["format": "pt"]
        ) { count in
            written += count
            self.progress?(
                WorkProgress(label: "Writing \(name)", completed: written, total: self.totalBytes, unit: .bytes)
            )
        }
        self.writtenBytes = start + bytes
        let manifest = ShardManifest(
            formatVersion: ShardManifest.currentVersion,
            kind: kind,
            name: name,
            fingerprint: self.placement.fingerprint,
            partFingerprint: Fingerprint.text(
                Fingerprint.of(stored, configuration: self.checkpoint.configuration)
            ),
            source: self.placement.source,
            pools: self.placement.pools.count,
            overrides: self.overrides,
            experts: experts,
            tensorCount: views.count,
            byteCount: bytes
        )
        try FileSystem.writeJSON(manifest, to: "\(directory)/\(ShardManifest.fileName)")
        try FileSystem.synchronize(directory)
    }
}
