// SPDX-License-Identifier: Apache-2.0

/// What the blocks of a family of models are made of, besides what its configuration's sizes say.
public struct BlockDesign: Sendable, Hashable {
    /// What a sublayer begins with.
    public enum Norm: Sendable, Hashable {
        /// Division by the root of the mean square.
        case rootMeanSquare
        /// The mean taken away first, a bias added last.
        case layer
    }

    /// The norm of sublayers and stacks.
    public var norm: Norm
    /// Whether matrices and norms have biases; whether routers do, ``ModelConfiguration/routerBias`` says.
    public var hasBiases: Bool
    /// Whether attention's scores are multiplied by `keyWidth^-0.5`.
    public var scalesScores: Bool
    /// Whether each stack has a relative position bias.
    public var hasRelativeBias: Bool
    /// Whether there is no encoder, so that the decoder attends to nothing but itself and its input is what it continues.
    public var isDecoderOnly: Bool

    /// T5, dense or with experts.
    public static let t5 = BlockDesign(
        norm: .rootMeanSquare,
        hasBiases: false,
        scalesScores: false,
        hasRelativeBias: true,
        isDecoderOnly: false
    )

    /// labml's Switch Transformer.
    public static let labml = BlockDesign(
        norm: .layer,
        hasBiases: true,
        scalesScores: true,
        hasRelativeBias: false,
        isDecoderOnly: true
    )
}
