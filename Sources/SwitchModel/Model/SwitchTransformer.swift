// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchyardTypes
public import TensorKernels

/// A Switch Transformer without its experts: embeddings, attention, norms, routers, dense feed-forwards and the
/// projection onto the vocabulary.
///
/// A decoder-only model, as labml's, is a decoder without cross-attention.
///
/// Fedus, Zoph and Shazeer, "Switch Transformers" (2021), on the T5 architecture of Raffel et al. (2020); computes what
/// transformers 4.52-4.57 and 5.18 onwards compute in float32. Deviations: sequences of a batch are concatenated rather
/// than padded, so a result never depends on neighbours; sums run in their own order.
public final class SwitchTransformer: Sendable {
    /// The model's sizes and constants.
    public let configuration: ModelConfiguration

    /// Threads that compute.
    public let pool: WorkPool

    let embedding: EmbeddingTable
    /// Nil in families without relative position biases.
    let encoderBias: RelativeBias?
    let decoderBias: RelativeBias?
    let encoderBlocks: [EncoderBlock]
    let decoderBlocks: [DecoderBlock]
    let encoderNorm: Norm
    let decoderNorm: Norm
    let head: PackedMatrix
    /// What the projection onto the vocabulary adds; nil in families without biases.
    let headBias: RowBias?

    /// Screens which logits can be the greatest; nil where the projection is small, has a bias, or has int8 weights itself.
    let headScreen: ProductScreen?

    /// How attention's keys and values are kept: rounded to bfloat16 where weights are int8, as they are computed in
    /// the other cases.
    let cacheType: DType

    /// The factor of the decoder's output before the projection: `d_model^-0.5` or 1
    /// (`ModelConfiguration.scalesDecoderOutputs`).
    let headScale: Float

    /// Lists of earlier decoder calls.
    let lanes = LaneShelf()

    /// Loads and packs a model's weights, without the experts.
    ///
    /// - Parameters:
    ///   - checkpoint: Where the tensors come from: a whole checkpoint or its gateway part.
    ///   - pool: Threads that compute.
    ///   - loadingPool: Threads that share the loading; nil for those that compute.
    ///   - storage: How to keep the weights.
    ///   - progress: Told after each tensor.
    /// - Throws: `CheckpointError` for tensors that are missing or malformed, `ModelError` for a configuration that is
    ///   not supported.
    public init(
        checkpoint: Checkpoint,
        pool: WorkPool,
        loadingPool: WorkPool? = nil,
        storage: WeightStorage = .checkpoint,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws {
        let configuration = checkpoint.configuration
        try ModelError.requireSupport(for: configuration)
        self.configuration = configuration
        self.pool = pool
        let loader = WeightLoader(
            checkpoint: checkpoint,
            pool: loadingPool ?? pool,
            storage: storage,
            label: "Loading the model",
            total: configuration.gatewayRoles.count + (configuration.tiedEmbeddings ? 1 : 0),
            progress: progress
        )
        let build = BlockBuilder(configuration: configuration, loader: loader)
        self.embedding = try loader.table(.sharedEmbedding)
        // A model of one stack never runs the other, so that its own parts may stand where the other's would.
        let first: Stack = configuration.hasEncoder ? .encoder : .decoder
        let second: Stack = configuration.hasDecoder ? .decoder : .encoder
        let encoderBlocks = try (0..<configuration.encoderBlocks).map { try build.encoderBlock($0) }
        let decoderBlocks = try (0..<configuration.decoderBlocks).map { try build.decoderBlock($0) }
        self.encoderBias = try build.relativeBias(first)
        self.encoderBlocks = encoderBlocks
        self.encoderNorm = try build.norm(.finalNorm(first))
        self.decoderBias = first == second ? self.encoderBias : try build.relativeBias(second)
        self.decoderBlocks = decoderBlocks
        self.decoderNorm = first == second ? self.encoderNorm : try build.norm(.finalNorm(second))
        let headRole: TensorRole = configuration.tiedEmbeddings ? .sharedEmbedding : .lmHead
        self.head = try loader.packed(headRole)
        self.cacheType = self.head.dtype == .int8 ? .bfloat16 : .float32
        self.headBias = try build.bias(of: headRole)
        self.headScreen = self.headBias == nil ? try loader.screen(headRole, for: self.head) : nil
        self.headScale =
            configuration.scalesDecoderOutputs ? Float(1 / Double(configuration.modelWidth).squareRoot()) : 1
    }

    /// How the weights are kept: the type of the projection onto the vocabulary, the largest of them.
    public var weightType: DType { self.head.dtype }

    /// Checks that ids name embeddings.
    func requireKnown(_ tokens: [Int32], input index: Int) throws(ModelError) {
        guard !tokens.isEmpty else {
            throw ModelError(
                code: .invalidInput,
                message: "input \(index) has no tokens; give it at least one, the end token"
            )
        }
        for token in tokens where token < 0 || Int(token) >= self.embedding.rows {
            throw ModelError(
                code: .invalidInput,
                message: "input \(index) has the token id \(token), the vocabulary ends at \(self.embedding.rows - 1);"
                    + " use the tokenizer of this checkpoint"
            )
        }
    }
}
