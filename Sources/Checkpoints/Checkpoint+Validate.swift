// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension Checkpoint {
    /// Names in old files that no model uses: transformers ignores them too.
    private static let ignoredNames: Set<String> = [
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    ]

    /// Checks that the folder holds the tensors that it should, each with the right shape and type.
    ///
    /// A whole checkpoint must hold the whole model, a part what its manifest says. Tensors of names that no model
    /// of the family has are ignored, as transformers does (``ignoredTensors`` lists them), except in a part. Copies of tied
    /// tensors must have the same numbers. Reads headers, and such copies.
    ///
    /// - Throws: `CheckpointError` for the first tensor, by name, that is wrong.
    public func validate() throws(CheckpointError) {
        try self.refuseUnknown()
        if self.manifest?.kind != .experts {
            for role in self.configuration.gatewayRoles { _ = try self.stored(role) }
            try self.compareCopies()
        }
        for (layer, experts) in self.expectedExperts {
            for expert in experts {
                for role in self.configuration.expertRoles(layer, expert: expert) {
                    if self.packing == nil || role.isBias {
                        _ = try self.stored(role)
                    } else {
                        _ = try self.packedTensor(role)
                    }
                }
            }
        }
    }

    /// Tensors whose names no model of the family has, ascending: transformers ignores them, and so does this library.
    public var ignoredTensors: [String] {
        guard self.manifest == nil else { return [] }
        return self.tensors.keys.filter { Self.ignoredNames.contains($0) || self.role(named: $0) == nil }.sorted()
    }

    /// One line about ``ignoredTensors`` for people; nil where there are none.
    public var ignoredNote: String? {
        let names = self.ignoredTensors
        guard !names.isEmpty else { return nil }
        let shown = names.prefix(4).map { String($0.prefix(120)) }.joined(separator: ", ")
        let rest = names.count > 4 ? " and \(names.count - 4) more" : ""
        return
            "\(self.directory): \(names.count) tensors have no place in the model and are ignored, as in "
            + "\(self.configuration.family.reader.reference): "
            + shown + rest
    }

    /// What people should know before the checkpoint is served, one line each.
    public var notes: [String] {
        let tokens = self.configuration.generationNotes.map { "\(self.directory): \($0)" }
        return (self.adapter?.notes ?? []) + [self.ignoredNote].compactMap(\.self) + tokens
    }

    /// The role that a name stands for in the checkpoint's family.
    func role(named name: String) -> TensorRole? { self.configuration.family.reader.role(named: name) }

    /// The role that a name in a packed part stands for: an expert's packed matrix, or its bias, which is as it was.
    private func role(packedName name: String) -> TensorRole? {
        TensorRole(packedName: name) ?? self.role(named: name).flatMap { $0.isExpert && $0.isBias ? $0 : nil }
    }

    /// The experts that this folder must hold.
    private var expectedExperts: [(SparseLayer, [Int])] {
        switch self.manifest?.kind {
        case .gateway: []
        case .experts: (self.manifest?.expertsByLayer ?? [:]).sorted { $0.key < $1.key }
        case nil: self.configuration.sparseLayers.map { ($0, Array(0..<self.configuration.expertCount)) }
        }
    }

    private func refuseUnknown() throws(CheckpointError) {
        let held = Dictionary(uniqueKeysWithValues: self.expectedExperts.map { ($0.0, Set($0.1)) })
        for (name, tensor) in self.tensors.sorted(by: { $0.key < $1.key }) where !Self.ignoredNames.contains(name) {
            guard let role = self.packing == nil ? self.role(named: name) : self.role(packedName: name) else {
                // transformers reports and ignores such tensors. A part holds what was cut into it, and nothing else.
                if self.manifest == nil, !self.configuration.family.reader.refusesUnknownTensors { continue }
                throw tensor.failure(
                    .unknownTensor,
                    "has a name unknown in Switch Transformers; remove it from the file, or choose another checkpoint"
                )
            }
            let isTiedHead = role == .lmHead && self.configuration.tiedEmbeddings
            guard self.configuration.has(role) || isTiedHead else {
                let hint = self.configuration.family.reader.hint(forUnplaced: role, in: self.configuration)
                throw tensor.failure(.unknownTensor, hint ?? self.hint(forUnplaced: role))
            }
            guard let manifest = self.manifest else { continue }
            let belongs: Bool
            if let expert = role.expert {
                belongs = held[expert.layer]?.contains(expert.index) ?? false
            } else {
                belongs = manifest.kind == .gateway
            }
            guard belongs else {
                throw tensor.failure(
                    .unknownTensor,
                    "does not belong to \(manifest.name), according to its \(ShardManifest.fileName); cut the checkpoint again"
                )
            }
        }
    }

    private func hint(forUnplaced role: TensorRole) -> String {
        switch role {
        case .bias(let part): return self.hint(forUnplaced: part)
        case .lmHead, .sharedEmbedding, .finalNorm, .relativeBias:
            return "has no place in this configuration; override tie_word_embeddings"
        case .attention(let stack, let block, _, _), .layerNorm(let stack, let block, _):
            return self.blockHint(stack, block)
        case .dense(let stack, let block, let matrix):
            guard block < self.configuration.blockCount(stack) else { return self.blockHint(stack, block) }
            guard self.configuration.isSparse(stack, block: block) else { return self.gatingHint(matrix) }
            return "is dense where the configuration makes block \(block) sparse; override \(stack)_sparse_step or "
                + "sparse_step_rule"
        case .expert(let layer, let expert, let matrix)
        where self.configuration.has(.expert(layer, expert: expert, .wo)): return self.gatingHint(matrix)
        case .router(let layer), .routerBias(let layer), .expert(let layer, _, _):
            guard layer.block < self.configuration.blockCount(layer.stack) else {
                return self.blockHint(layer.stack, layer.block)
            }
            guard self.configuration.isSparse(layer.stack, block: layer.block) else {
                return "is sparse where the configuration makes block \(layer.block) dense; override "
                    + "\(layer.stack)_sparse_step or sparse_step_rule"
            }
            return role == .routerBias(layer)
                ? "has no place in this configuration; override router_bias=true"
                : "is beyond the \(self.configuration.expertCount) experts of the configuration; override num_experts"
        }
    }

    private func gatingHint(_ matrix: FeedForwardMatrix) -> String {
        matrix == .wi
            ? "belongs to a feed-forward network without a gate, and the model's have wi_0 and wi_1; override is_gated_act=false"
            : "belongs to a gated feed-forward network, and the model's have one wi and no gate; override is_gated_act=true"
    }

    private func blockHint(_ stack: Stack, _ block: Int) -> String {
        let key = stack == .encoder ? "num_layers" : "num_decoder_layers"
        return
            "belongs to block \(block), and the configuration gives the \(stack) \(self.configuration.blockCount(stack)) blocks; "
            + "override \(key)"
    }

    /// All copies of the embedding, and of the output projection, must be one tensor.
    private func compareCopies() throws(CheckpointError) {
        let roles: [TensorRole] = self.configuration.tiedEmbeddings ? [.sharedEmbedding] : [.sharedEmbedding, .lmHead]
        for role in roles {
            let used = try self.stored(role)
            for name in self.configuration.names(of: role) {
                guard let copy = self.tensors[name], name != used.name else { continue }
                guard copy.hasValues(of: used) else {
                    throw copy.failure(
                        .conflictingTensors,
                        "should be the same tensor as \(used.name), but is a different one; "
                            + (TensorRole.headNames.contains(name)
                                ? "override tie_word_embeddings=false if the output projection is its own, and "
                                    + "scale_decoder_outputs=true with it if the decoder's outputs are scaled all the same, as "
                                    + "transformers does for a configuration that says tied"
                                : "choose another checkpoint")
                    )
                }
            }
        }
    }
}
