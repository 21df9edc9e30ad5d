// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The shape and the constants of one Switch Transformer, as the files next to its weights describe them.
///
/// `load(directory:overrides:)` reads them and checks every field's range. A configuration made with `init` is
/// checked by `validate()`.
public struct ModelConfiguration: Sendable, Equatable {
    /// The function between the two matrices of a feed-forward network.
    public enum Activation: String, Sendable, Hashable, CaseIterable {
        /// `max(x, 0)`; every released checkpoint that transformers can run uses it.
        case relu
        /// `x * Phi(x)` with the error function.
        case gelu
        /// `gelu` by its tanh approximation.
        case geluTanh = "gelu_new"
        /// `x * sigmoid(x)`.
        case silu
        /// `x * sigmoid(1.702 * x)`.
        case quickGELU = "quick_gelu"
        /// The hyperbolic tangent.
        case tanh
        /// `min(max(x, 0), 6)`.
        case relu6
        /// `max(x, 0)` squared.
        case squaredReLU = "relu2"

        /// The function of a name in transformers' table of activations, by which several names mean one function
        /// (`ACT2FN`, https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/activations.py).
        ///
        /// - Parameter name: For example `gelu_new`; nil for a function that no known checkpoint uses.
        init?(transformersName name: String) {
            switch name {
            case "relu": self = .relu
            case "gelu", "gelu_python": self = .gelu
            case "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate": self = .geluTanh
            case "silu", "swish": self = .silu
            case "quick_gelu", "tanh", "relu6", "relu2":
                guard let activation = Self(rawValue: name) else { return nil }
                self = activation
            default: return nil
            }
        }

        /// The names that `init(transformersName:)` reads.
        static let transformersNames = [
            "relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_python", "gelu_python_tanh", "gelu_fast",
            "gelu_accurate", "silu",
            "swish", "quick_gelu", "tanh", "relu6", "relu2",
        ]
    }

    /// Which blocks of a stack are sparse, given the stack's step.
    public enum SparseStepRule: String, Sendable, Hashable, CaseIterable {
        /// `block % step == 1`, or every block at step 1: what transformers does (`modeling_switch_transformers.py`,
        /// 5.23.0).
        case huggingFace = "hf"
        /// `block % step == step - 1`: what Mesh TensorFlow and T5X do. The same as `huggingFace` at steps 1 and 2.
        case google
    }

    /// What the experts' layer gives for a token that finds its expert at its capacity.
    public enum DroppedTokens: String, Sendable, Hashable, CaseIterable {
        /// Zeros, so that only the residual remains: what transformers does.
        case zero
        /// The sublayer's normalised input, scaled as an expert's output would be: what labml's implementation does
        /// (https://nn.labml.ai/transformers/switch/index.html), which chooses the dropped tokens at random, though.
        case pass
    }

    /// What kind of model it is (`model_type`).
    public var family = ModelFamily.switchTransformers
    /// What the family's blocks are made of.
    public var design = BlockDesign.t5
    /// Tokens that have an embedding (`vocab_size`).
    public var vocabularySize: Int
    /// Elements of a hidden state (`d_model`).
    public var modelWidth: Int
    /// Elements of one head's query, key or value (`d_kv`).
    public var keyWidth: Int
    /// Elements between the two matrices of a feed-forward network (`d_ff`).
    public var feedForwardWidth: Int
    /// Attention heads (`num_heads`).
    ///
    /// `headCount * keyWidth` need not be `modelWidth`.
    public var headCount: Int
    /// Blocks of the encoder (`num_layers`).
    public var encoderBlocks: Int
    /// Blocks of the decoder (`num_decoder_layers`).
    public var decoderBlocks: Int
    /// Distance between the encoder's sparse blocks, 0 for none (`encoder_sparse_step`, or from
    /// `num_sparse_encoder_layers`).
    public var encoderSparseStep: Int
    /// Distance between the decoder's sparse blocks, 0 for none (`decoder_sparse_step`, or from
    /// `num_sparse_decoder_layers`).
    public var decoderSparseStep: Int
    /// Which blocks the two steps choose.
    public var sparseStepRule: SparseStepRule
    /// Experts of each sparse layer (`num_experts`); 0 in families without experts.
    public var expertCount: Int
    /// Tokens of one sequence that one expert takes in one layer and one pass (`expert_capacity`).
    public var expertCapacity: Int
    /// Whether routers add a bias (`router_bias`).
    public var routerBias: Bool
    /// The type in which routers compute (`router_dtype`).
    public var routerDType: DType
    /// Added to the mean square in every norm (`layer_norm_epsilon`).
    public var layerNormEpsilon: Float
    /// Rows of a relative position bias (`relative_attention_num_buckets`).
    public var relativeBuckets: Int
    /// Distance from which all positions share a bucket (`relative_attention_max_distance`).
    public var relativeMaxDistance: Int
    /// Whether the output projection is the embedding, scaled by `modelWidth^-0.5` (`tie_word_embeddings`).
    public var tiedEmbeddings: Bool
    /// Whether the decoder's outputs are multiplied by `modelWidth^-0.5` before the projection; nil where that follows
    /// from `tiedEmbeddings`, as in transformers for Switch Transformers (`scale_decoder_outputs`).
    public var decoderOutputScaling: Bool?
    /// Whether an expert's output is multiplied by the router's probability (`is_scale_prob`, an override).
    public var scalesByProbability = true
    /// What the experts' layer gives for a token over its expert's capacity (`dropped_tokens`, an override).
    public var droppedTokens = DroppedTokens.zero
    /// What labml multiplies an even share of the tokens with to get an expert's capacity (`capacity_factor`); it counts
    /// only where a capacity is asked for.
    public var capacityFactor = 1.0
    /// Whether labml would drop tokens over capacity (`drop_tokens`).
    public var dropsTokens = false
    /// Whether feed-forward networks are gated, `wo(activation(wi0 x) * (wi1 x))`: in dense T5 as the configuration says,
    /// in Switch Transformers as the weights say.
    public var gatedFeedForward = false
    /// The override of `is_gated_act`, by which a Switch Transformer's weights are not asked.
    var gatingChoice: Bool?
    /// Whether `architectures` names only classes that are an encoder, such as `SwitchTransformersEncoderModel`.
    var isEncoderClass = false
    /// The token that decoding begins with (`decoder_start_token_id`).
    public var decoderStartTokenID: Int
    /// The token that ends an input, and an answer if ``generation`` says so (`eos_token_id`).
    public var endTokenID: Int
    /// The token that fills unused positions (`pad_token_id`).
    public var padTokenID: Int
    /// The function inside feed-forward networks (`dense_act_fn`).
    public var activation: Activation
    /// The checkpoint's generation defaults, for parameters that a request leaves out.
    public var generation: GenerationDefaults
    /// Whether the file with generation's keys names no start token, so that transformers would refuse to generate.
    var assumesStartToken = false

    /// Makes a configuration; omitted values are those of transformers' configuration class.
    ///
    /// - Parameters:
    ///   - vocabularySize: Tokens that have an embedding.
    ///   - modelWidth: Elements of a hidden state.
    ///   - keyWidth: Elements of one head's query, key or value.
    ///   - feedForwardWidth: Elements between the two matrices of a feed-forward network.
    ///   - headCount: Attention heads.
    ///   - encoderBlocks: Blocks of the encoder.
    ///   - decoderBlocks: Blocks of the decoder.
    ///   - encoderSparseStep: Distance between the encoder's sparse blocks.
    ///   - decoderSparseStep: Distance between the decoder's sparse blocks.
    ///   - sparseStepRule: Which blocks the two steps choose.
    ///   - expertCount: Experts of each sparse layer.
    ///   - expertCapacity: Tokens of one sequence that one expert takes.
    ///   - routerBias: Whether routers add a bias.
    ///   - routerDType: The type in which routers compute.
    ///   - layerNormEpsilon: Added to the mean square in every norm.
    ///   - relativeBuckets: Rows of a relative position bias.
    ///   - relativeMaxDistance: Distance from which all positions share a bucket.
    ///   - tiedEmbeddings: Whether the output projection is the embedding.
    ///   - decoderStartTokenID: The token that decoding begins with.
    ///   - endTokenID: The token that ends a sequence.
    ///   - padTokenID: The token that fills unused positions.
    ///   - activation: The function inside feed-forward networks.
    ///   - generation: The checkpoint's generation defaults.
    public init(
        vocabularySize: Int = 32_128,
        modelWidth: Int = 768,
        keyWidth: Int = 64,
        feedForwardWidth: Int = 2_048,
        headCount: Int = 12,
        encoderBlocks: Int = 12,
        decoderBlocks: Int = 12,
        encoderSparseStep: Int = 4,
        decoderSparseStep: Int = 4,
        sparseStepRule: SparseStepRule = .huggingFace,
        expertCount: Int = 8,
        expertCapacity: Int = 64,
        routerBias: Bool = false,
        routerDType: DType = .float32,
        layerNormEpsilon: Float = 1e-6,
        relativeBuckets: Int = 32,
        relativeMaxDistance: Int = 128,
        tiedEmbeddings: Bool = true,
        decoderStartTokenID: Int = 0,
        endTokenID: Int = 1,
        padTokenID: Int = 0,
        activation: Activation = .relu,
        generation: GenerationDefaults = GenerationDefaults()
    ) {
        self.vocabularySize = vocabularySize
        self.modelWidth = modelWidth
        self.keyWidth = keyWidth
        self.feedForwardWidth = feedForwardWidth
        self.headCount = headCount
        self.encoderBlocks = encoderBlocks
        self.decoderBlocks = decoderBlocks
        self.encoderSparseStep = encoderSparseStep
        self.decoderSparseStep = decoderSparseStep
        self.sparseStepRule = sparseStepRule
        self.expertCount = expertCount
        self.expertCapacity = expertCapacity
        self.routerBias = routerBias
        self.routerDType = routerDType
        self.layerNormEpsilon = layerNormEpsilon
        self.relativeBuckets = relativeBuckets
        self.relativeMaxDistance = relativeMaxDistance
        self.tiedEmbeddings = tiedEmbeddings
        self.decoderStartTokenID = decoderStartTokenID
        self.endTokenID = endTokenID
        self.padTokenID = padTokenID
        self.activation = activation
        self.generation = generation
    }
}
