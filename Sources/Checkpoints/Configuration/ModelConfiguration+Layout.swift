// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

extension ModelConfiguration {
    /// The number of blocks of a stack.
    ///
    /// - Parameter stack: The stack.
    /// - Returns: `encoderBlocks` or `decoderBlocks`.
    public func blockCount(_ stack: Stack) -> Int {
        stack == .encoder ? self.encoderBlocks : self.decoderBlocks
    }

    /// Whether a block's feed-forward layer has experts.
    ///
    /// Transformers' rule, kept with its quirk: a configuration with no sparse layers but with a step equal to the
    /// number of blocks makes block 1 sparse. `SparseStepRule.google` is the other rule.
    ///
    /// - Parameters:
    ///   - stack: The stack that the block belongs to.
    ///   - block: The index of the block, from 0.
    /// - Returns: Whether the block is sparse; `false` for a block that does not exist.
    public func isSparse(_ stack: Stack, block: Int) -> Bool {
        let step = stack == .encoder ? self.encoderSparseStep : self.decoderSparseStep
        guard step > 0, block >= 0, block < self.blockCount(stack) else { return false }
        switch self.sparseStepRule {
        case .huggingFace: return block % step == 1 || step == 1
        case .google: return block % step == step - 1
        }
    }

    /// Every sparse layer, ascending: the encoder's first.
    public var sparseLayers: [SparseLayer] {
        Stack.allCases.flatMap { stack in
            (0..<max(0, self.blockCount(stack)))
                .filter { self.isSparse(stack, block: $0) }
                .map { SparseLayer(stack: stack, block: $0) }
        }
    }

    /// Whether the decoder's outputs are multiplied by `modelWidth^-0.5` before the projection.
    public var scalesDecoderOutputs: Bool { self.decoderOutputScaling ?? self.tiedEmbeddings }

    /// Whether the model can generate and score; a model that is only an encoder has no decoder blocks.
    public var hasDecoder: Bool { self.decoderBlocks > 0 }

    /// The matrices of every feed-forward network, dense or expert, in the order of their use.
    public var feedForwardMatrices: [FeedForwardMatrix] { self.gatedFeedForward ? [.wi0, .wi1, .wo] : [.wi, .wo] }

    /// Whether the model has an encoder; without one its input is what the answer continues.
    public var hasEncoder: Bool { self.encoderBlocks > 0 }

    /// Tokens of one sequence that one expert takes in one layer and one pass, as the checkpoint has it.
    ///
    /// `Int.max` in a family whose experts take all tokens unless a capacity is asked for.
    public var checkpointCapacity: Int { self.family == .labmlSwitch ? .max : self.expertCapacity }

    /// Whether any layer has experts, so that the model can be cut into pools.
    public var hasExperts: Bool { !self.sparseLayers.isEmpty }

    /// The same model without its decoder and projection.
    var encoderAlone: ModelConfiguration {
        var result = self
        result.decoderBlocks = 0
        result.decoderSparseStep = 0
        // There is no projection that could have weights of its own.
        result.tiedEmbeddings = true
        return result
    }

    /// Elements of all heads' queries together: `headCount * keyWidth`, not always `modelWidth`.
    public var attentionWidth: Int { self.headCount * self.keyWidth }

    /// The shape that a tensor has in this model.
    ///
    /// - Parameter role: What the tensor is for. Blocks and experts that do not exist get the shape that they would
    ///   have.
    /// - Returns: The extents, slowest first.
    public func shape(of role: TensorRole) -> [Int] {
        switch role {
        case .sharedEmbedding, .lmHead: [self.vocabularySize, self.modelWidth]
        case .finalNorm, .layerNorm: [self.modelWidth]
        case .attention(_, _, _, .output): [self.modelWidth, self.attentionWidth]
        case .attention: [self.attentionWidth, self.modelWidth]
        case .relativeBias: [self.relativeBuckets, self.headCount]
        case .dense(_, _, .wo), .expert(_, _, .wo): [self.modelWidth, self.feedForwardWidth]
        case .dense, .expert: [self.feedForwardWidth, self.modelWidth]
        case .router: [self.expertCount, self.modelWidth]
        case .routerBias: [self.expertCount]
        case .bias(let part): Array(self.shape(of: part).prefix(1))
        }
    }

    /// Every tensor of the model except the experts', in a fixed order; a tied output projection is not a separate
    /// tensor.
    public var gatewayRoles: [TensorRole] {
        var roles: [TensorRole] = [.sharedEmbedding]
        for stack in Stack.allCases where self.blockCount(stack) > 0 {
            if self.design.hasRelativeBias { roles.append(.relativeBias(stack)) }
            for block in 0..<self.blockCount(stack) {
                roles += self.blockRoles(stack, block)
            }
            roles += self.withBias(.finalNorm(stack))
        }
        if !self.tiedEmbeddings { roles += self.withBias(.lmHead) }
        return roles
    }

    /// Every tensor of one expert, in a fixed order.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - expert: Index of the expert.
    /// - Returns: The matrices in the order of their use, each with its bias behind it where the family has biases.
    public func expertRoles(_ layer: SparseLayer, expert: Int) -> [TensorRole] {
        self.feedForwardMatrices.flatMap { self.withBias(.expert(layer, expert: expert, $0)) }
    }

    /// A matrix or norm, and its bias where the family has biases.
    private func withBias(_ role: TensorRole) -> [TensorRole] {
        self.design.hasBiases ? [role, .bias(of: role)] : [role]
    }

    private func blockRoles(_ stack: Stack, _ block: Int) -> [TensorRole] {
        var roles = self.withBias(.layerNorm(stack, block: block, .selfAttention))
        roles += AttentionProjection.allCases
            .flatMap { self.withBias(.attention(stack, block: block, .selfAttention, $0)) }
        if self.hasCrossAttention(stack) {
            roles += self.withBias(.layerNorm(stack, block: block, .crossAttention))
            roles += AttentionProjection.allCases
                .flatMap { self.withBias(.attention(stack, block: block, .cross, $0)) }
        }
        roles += self.withBias(.layerNorm(stack, block: block, .feedForward))
        if self.isSparse(stack, block: block) {
            let layer = SparseLayer(stack: stack, block: block)
            roles.append(.router(layer))
            if self.routerBias { roles.append(.routerBias(layer)) }
        } else {
            roles += self.feedForwardMatrices.flatMap { self.withBias(.dense(stack, block: block, $0)) }
        }
        return roles
    }

    /// Whether a stack's blocks attend to an encoder.
    private func hasCrossAttention(_ stack: Stack) -> Bool { stack == .decoder && !self.design.isDecoderOnly }

    /// Whether the model has a tensor for this role.
    ///
    /// - Parameter role: What the tensor would be for.
    /// - Returns: `false` for a block, an expert or a separate output projection that the configuration does not have.
    public func has(_ role: TensorRole) -> Bool {
        switch role {
        case .sharedEmbedding: true
        case .finalNorm(let stack): self.blockCount(stack) > 0
        case .relativeBias(let stack): self.design.hasRelativeBias && self.blockCount(stack) > 0
        case .lmHead: !self.tiedEmbeddings
        case .attention(let stack, let block, let kind, _):
            self.hasBlock(stack, block) && (kind == .selfAttention || self.hasCrossAttention(stack))
        case .layerNorm(let stack, let block, let sublayer):
            self.hasBlock(stack, block) && (sublayer != .crossAttention || self.hasCrossAttention(stack))
        case .dense(let stack, let block, let matrix):
            self.hasBlock(stack, block) && !self.isSparse(stack, block: block)
                && self.feedForwardMatrices.contains(matrix)
        case .router(let layer): self.isSparse(layer.stack, block: layer.block)
        case .routerBias(let layer): self.routerBias && self.isSparse(layer.stack, block: layer.block)
        case .expert(let layer, let expert, let matrix):
            self.isSparse(layer.stack, block: layer.block) && expert >= 0 && expert < self.expertCount
                && self.feedForwardMatrices.contains(matrix)
        case .bias(let part): self.design.hasBiases && part.takesBias && self.has(part)
        }
    }

    private func hasBlock(_ stack: Stack, _ block: Int) -> Bool {
        block >= 0 && block < self.blockCount(stack)
    }

    /// Parameters of the whole model, all experts included; `Int.max` where they are more.
    public var parameterCount: Int {
        func product(_ factors: [Int]) -> Int {
            factors.reduce(1) { product, factor in
                let (value, overflow) = product.multipliedReportingOverflow(by: factor)
                return overflow ? .max : value
            }
        }
        func sum(_ left: Int, _ right: Int) -> Int {
            let (value, overflow) = left.addingReportingOverflow(right)
            return overflow ? .max : value
        }
        var total = self.gatewayRoles.reduce(0) { sum($0, product(self.shape(of: $1))) }
        guard let layer = self.sparseLayers.first else { return total }
        // Every expert of every layer has the same tensors.
        for role in self.expertRoles(layer, expert: 0) where self.has(role) {
            total = sum(total, product(self.shape(of: role) + [self.expertCount, self.sparseLayers.count]))
        }
        return total
    }
}
