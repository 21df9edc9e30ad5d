// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes

/// A matrix among the parameters.
struct Weight {
    let index: Int
    let outputs: Int
    let inputs: Int
}

/// The matrices of one attention layer.
struct AttentionParameters {
    let norm: Int
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
    let norm: Int
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
    let finalNorm: [Stack: Int]
    let blocks: [Stack: [BlockParameters]]

    init(_ configuration: ModelConfiguration, layout: ParameterLayout) {
        func index(_ role: TensorRole) -> Int {
            guard let index = layout.index(of: role) else {
                preconditionFailure("the layout lacks \(configuration.name(of: role)), which its own configuration has")
            }
            return index
        }
        func weight(_ role: TensorRole) -> Weight {
            let shape = configuration.shape(of: role)
            return Weight(index: index(role), outputs: shape[0], inputs: shape[1])
        }
        func attention(_ stack: Stack, _ block: Int, _ kind: AttentionKind) -> AttentionParameters {
            AttentionParameters(
                norm: index(.layerNorm(stack, block: block, kind == .cross ? .crossAttention : .selfAttention)),
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
                crossAttention: stack == .decoder ? attention(stack, block, .cross) : nil,
                norm: index(.layerNorm(stack, block: block, .feedForward)),
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
        let stacks = Stack.allCases
        self.relativeBias = Dictionary(uniqueKeysWithValues: stacks.map { ($0, index(.relativeBias($0))) })
        self.finalNorm = Dictionary(uniqueKeysWithValues: stacks.map { ($0, index(.finalNorm($0))) })
        self.blocks = Dictionary(
            uniqueKeysWithValues: stacks.map { stack in
                (stack, (0..<configuration.blockCount(stack)).map { block(stack, $0) })
            }
        )
    }
}
