// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes

/// A matrix among the parameters, and what is added to its products.
struct Weight {
    let index: Int
    let outputs: Int
    let inputs: Int
    /// The entry of the bias, in families that have biases.
    var bias: Int?

    /// A matrix of a layout; nil where the layout lacks it.
    init?(_ role: TensorRole, of configuration: ModelConfiguration, in layout: ParameterLayout) {
        guard let index = layout.index(of: role) else { return nil }
        let shape = configuration.shape(of: role)
        self.index = index
        self.outputs = shape[0]
        self.inputs = shape[1]
        self.bias = layout.index(of: .bias(of: role))
    }
}

/// A norm among the parameters.
struct NormParameters {
    let weight: Int
    /// The entry of the bias; nil for T5's norm, which has none.
    var bias: Int?
}

/// The matrices of one attention layer.
struct AttentionParameters {
    let norm: NormParameters
    let query: Weight
    let key: Weight
    let value: Weight
    let output: Weight
}

/// The matrices of one feed-forward network.
struct FeedForwardParameters {
    /// `wi`, or `wi_0` where the network is gated.
    let inner: Weight
    /// `wi_1` of a gated network.
    let factor: Weight?
    let wo: Weight

    var weights: [Weight] { [self.inner, self.wo] + (self.factor.map { [$0] } ?? []) }
}

/// The experts of one layer and their router.
struct SparseParameters {
    let layer: SparseLayer
    let router: Weight
    let routerBias: Int?
    let experts: [FeedForwardParameters]
}

/// One block's parameters.
struct BlockParameters {
    let stack: Stack
    let block: Int
    let selfAttention: AttentionParameters
    let crossAttention: AttentionParameters?
    let norm: NormParameters
    let dense: FeedForwardParameters?
    let sparse: SparseParameters?
}

/// Where each of a model's parameters lies in its layout.
struct ModelParameters {
    let embedding: Weight
    /// The output projection: the embedding where they are tied.
    let head: Weight
    let isTied: Bool
    let relativeBias: [Stack: Int]
    let finalNorm: [Stack: NormParameters]
    let blocks: [Stack: [BlockParameters]]

    init(_ configuration: ModelConfiguration, layout: ParameterLayout) {
        func index(_ role: TensorRole) -> Int {
            guard let index = layout.index(of: role) else {
                preconditionFailure("the layout lacks \(configuration.name(of: role)), which its own configuration has")
            }
            return index
        }
        func weight(_ role: TensorRole) -> Weight {
            guard let weight = Weight(role, of: configuration, in: layout) else {
                preconditionFailure("the layout lacks \(configuration.name(of: role)), which its own configuration has")
            }
            return weight
        }
        func norm(_ role: TensorRole) -> NormParameters {
            NormParameters(weight: index(role), bias: layout.index(of: .bias(of: role)))
        }
        func attention(_ stack: Stack, _ block: Int, _ kind: AttentionKind) -> AttentionParameters {
            AttentionParameters(
                norm: norm(.layerNorm(stack, block: block, kind == .cross ? .crossAttention : .selfAttention)),
                query: weight(.attention(stack, block: block, kind, .query)),
                key: weight(.attention(stack, block: block, kind, .key)),
                value: weight(.attention(stack, block: block, kind, .value)),
                output: weight(.attention(stack, block: block, kind, .output))
            )
        }
        func network(_ role: (FeedForwardMatrix) -> TensorRole) -> FeedForwardParameters {
            let isGated = configuration.gatedFeedForward
            return FeedForwardParameters(
                inner: weight(role(isGated ? .wi0 : .wi)),
                factor: isGated ? weight(role(.wi1)) : nil,
                wo: weight(role(.wo))
            )
        }
        func block(_ stack: Stack, _ block: Int) -> BlockParameters {
            let layer = SparseLayer(stack: stack, block: block)
            let isSparse = configuration.isSparse(stack, block: block)
            return BlockParameters(
                stack: stack,
                block: block,
                selfAttention: attention(stack, block, .selfAttention),
                crossAttention: stack == .decoder && configuration.hasEncoder
                    ? attention(stack, block, .cross) : nil,
                norm: norm(.layerNorm(stack, block: block, .feedForward)),
                dense: isSparse ? nil : network { .dense(stack, block: block, $0) },
                sparse: isSparse
                    ? SparseParameters(
                        layer: layer,
                        router: weight(.router(layer)),
                        routerBias: configuration.routerBias ? index(.routerBias(layer)) : nil,
                        experts: (0..<configuration.expertCount)
                            .map { expert in
                                network { .expert(layer, expert: expert, $0) }
                            }
                    ) : nil
            )
        }
        self.isTied = configuration.tiedEmbeddings
        self.embedding = weight(.sharedEmbedding)
        self.head = configuration.tiedEmbeddings ? self.embedding : weight(.lmHead)
        let stacks = Stack.allCases.filter { configuration.blockCount($0) > 0 }
        self.relativeBias =
            configuration.design.hasRelativeBias
            ? Dictionary(uniqueKeysWithValues: stacks.map { ($0, index(.relativeBias($0))) }) : [:]
        self.finalNorm = Dictionary(uniqueKeysWithValues: stacks.map { ($0, norm(.finalNorm($0))) })
        self.blocks = Dictionary(
            uniqueKeysWithValues: stacks.map { stack in
                (stack, (0..<configuration.blockCount(stack)).map { block(stack, $0) })
            }
        )
    }
}
