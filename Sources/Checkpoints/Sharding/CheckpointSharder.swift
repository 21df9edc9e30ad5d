// SPDX-License-Identifier: Apache-2.0

/// Cuts a checkpoint into a part for the gateway and a part for each expert pool.
public enum CheckpointSharder {
    /// The gateway part's folder in the output.
    static let gatewayDirectory = "gateway"
    static let weightsFile = "model.safetensors"
    /// What the gateway part gets besides the weights, if the checkpoint has it.
    static let companionFiles = [
        ModelConfiguration.configurationFile, ModelConfiguration.generationFile, "spiece.model", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    ]
    /// What an expert part needs of those.
    static let expertCompanionFiles = [ModelConfiguration.configurationFile]

    /// Cuts a checkpoint.
    ///
    /// Makes `OUTPUT/placement.json`, `OUTPUT/gateway/` and `OUTPUT/pool-0/` through `pool-(N-1)/`. Expert `e` of every
    /// sparse layer goes to pool `e * N / experts`. Everything is written into a folder next to the output, which
    /// replaces the output in one step when it is complete: an output folder that exists is whole.
    ///
    /// - Parameters:
    ///   - model: A whole checkpoint's folder.
    ///   - output: A folder that does not exist yet or is empty.
    ///   - pools: The number of expert parts, 1 through the number of experts.
    ///   - overrides: Configuration keys to override; the parts remember them.
    ///   - adapter: The folder of a LoRA adapter to merge into the weights.
    ///   - packing: Packs the experts' matrices; nil copies them as they are.
    ///   - force: Whether to replace the output of an earlier cut. Any other non-empty folder is still refused.
    ///   - progress: Called for every piece written.
    ///   - note: Called with lines about a merged adapter and about tensors that have no place in the model.
    /// - Returns: Which pool holds which experts.
    /// - Throws: `CheckpointError` if the checkpoint is not complete, or the output cannot be written.
    @discardableResult
    public static func shard(
        model: String,
        output: String,
        pools: Int,
        overrides: [String: String] = [:],
        adapter: String? = nil,
        packing: (any MatrixPacking)? = nil,
        force: Bool = false,
        progress: (@Sendable (WorkProgress) -> Void)? = nil,
        note: ((String) -> Void)? = nil
    ) throws(CheckpointError) -> PlacementFile {
        let checkpoint = try Checkpoint.open(model, overrides: overrides, adapter: adapter, progress: progress)
        guard checkpoint.manifest == nil else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "is itself a part of a cut checkpoint; cut the whole one",
                file: model
            )
        }
        try checkpoint.validate()
        for text in checkpoint.notes { note?(text) }
        let experts = checkpoint.configuration.expertCount
        guard checkpoint.configuration.hasExperts else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "has no experts (model_type \(checkpoint.configuration.family.rawValue)), so there is nothing "
                    + "to cut: serve the folder as it is, with `switchyard up` or `switchyard gateway --model` and no pools",
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
        var placement = PlacementFile(
            fingerprint: checkpoint.fingerprint,
            source: HubCache.displayName(of: model) + (adapter.map { " + " + HubCache.displayName(of: $0) } ?? ""),
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
            var run = ShardRun(checkpoint, placement, overrides, packing: packing, progress: progress)
            try target.checkSpace(run.totalBytes)
            placement.outputBounds = try LayerOutputBounds.all(of: checkpoint)
            run.placement = placement
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
