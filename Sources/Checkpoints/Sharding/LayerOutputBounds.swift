// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// How large the outputs of one sparse layer's experts can be, so that a gateway can refuse what none of them computes.
///
/// Let `|x|` be the Euclidean norm of an input row, `|W|` the Frobenius norm of a matrix and `|w_j|` the norm of row `j` of
/// `wo`. By Cauchy and Schwarz no output exceeds `|w_j| |h|`, where `h` are the activations, and `|W x| <= |W| |x|`.
///
/// - Each activation `a` here has `|a(z)| <= |z|`: ReLU, ReLU6 and tanh plainly; GELU, its approximation, SiLU and
///   QuickGELU because each is `z` times a number from 0 to 1. So `|h| <= |wi| |x|`: degree 1.
/// - The squared ReLU has `|a(z)| <= z^2`, and `|z o z| <= |z|^2`: the exponent of `|wi| |x|` is 2.
/// - A gated network multiplies with `wi1 x`, and `|a o b| <= |a| |b|`: one more factor `|wi1| |x|`.
///
/// - Biases `b` before the activation and `c` after `wo` add `|b|` to `|wi| |x|`, and `|c_j|` to the output: what does not grow
///   with `x` is ``constants``. No family has biases beside a gate or a square; they would bound nothing here.
///
/// So `|y_j| <= max_j |w_j| |wi|^p |wi1|^q |x|^(p + q)`, which is ``experts`` times `|x|` to the power of ``degree``.
public struct LayerOutputBounds: Codable, Sendable, Hashable {
    /// What a gateway multiplies a bound with, and for each degree the input row's norm.
    ///
    /// The bound is of the checkpoint's weights, but a host may round them and what they are multiplied with. With int8 a
    /// row of `n` values changes by at most `sqrt(n) / 254` of its norm: by 0.51 of it at `d_ff` up to 16,384, for `wo` and
    /// the activations, and by 0.26 at `d_model` up to 4,096, for each inner matrix and the input. `1.51 * 1.51` and
    /// `1.26 * 1.26` leave room for bfloat16 and for sums in float32.
    static let slack = (bound: 2.5, norm: 1.65)

    /// `encoder` or `decoder`.
    public var stack: String
    /// The index of the block in its stack.
    public var block: Int
    /// The power of the input row's norm, 1 through 3.
    public var degree: Int
    /// For each expert the largest magnitude of an output for an input row of norm 1; from 3e38 on there is none.
    public var experts: [Float]
    /// For each expert what its biases add to that, whatever the input row; nil without biases.
    public var constants: [Float]?

    /// A bound that bounds nothing, also for weights that are not numbers.
    static let unbounded: Float = 3e38

    /// Describes a layer.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - degree: The power of the input row's norm.
    ///   - experts: The bound of each expert.
    ///   - constants: What biases add to it.
    public init(layer: SparseLayer, degree: Int, experts: [Float], constants: [Float]? = nil) {
        self.stack = layer.stack.description
        self.block = layer.block
        self.degree = degree
        self.experts = experts
        self.constants = constants
    }

    /// The layer; nil if the stack has another name.
    public var layer: SparseLayer? { Stack(name: self.stack).map { SparseLayer(stack: $0, block: self.block) } }

    /// The largest magnitude that an output can have, with the slack.
    ///
    /// - Parameters:
    ///   - expert: Index of the expert, which the layer has.
    ///   - squaredNorm: The square of the input row's Euclidean norm.
    /// - Returns: A finite number. An input row that is not finite bounds nothing.
    public func limit(of expert: Int, squaredNorm: Float) -> Float {
        guard squaredNorm.isFinite, self.experts[expert] < Self.unbounded else { return .greatestFiniteMagnitude }
        // Squares of numbers below 1e-19 vanish, so smaller norms are not told apart.
        let norm = max(Double(squaredNorm).squareRoot(), 1e-10) * Self.slack.norm
        var limit = Self.slack.bound * Double(self.experts[expert])
        for _ in 0..<self.degree { limit *= norm }
        if let constants, constants.indices.contains(expert) {
            guard constants[expert] < Self.unbounded else { return .greatestFiniteMagnitude }
            limit += Self.slack.bound * Double(constants[expert])
        }
        return limit < Double(Float.greatestFiniteMagnitude) ? Float(limit) : .greatestFiniteMagnitude
    }

    /// Computes the bounds of all experts of a checkpoint, reading each of their weights once.
    ///
    /// - Parameter checkpoint: A whole checkpoint.
    /// - Returns: One entry for each sparse layer.
    /// - Throws: `CheckpointError` if a tensor is missing.
    static func all(of checkpoint: Checkpoint) throws(CheckpointError) -> [LayerOutputBounds] {
        let model = checkpoint.configuration
        let power = model.activation == .squaredReLU ? 2 : 1
        var result: [LayerOutputBounds] = []
        for layer in model.sparseLayers {
            var experts: [Float] = []
            var constants: [Float] = []
            for expert in 0..<model.expertCount {
                func rows(_ matrix: FeedForwardMatrix) throws(CheckpointError) -> [Double] {
                    try checkpoint.stored(.expert(layer, expert: expert, matrix)).view().squaredRowNorms
                }
                func norm(_ matrix: FeedForwardMatrix) throws(CheckpointError) -> Double {
                    try rows(matrix).reduce(0, +).squareRoot()
                }
                let inner = try norm(model.gatedFeedForward ? .wi0 : .wi)
                let outer = try (rows(.wo).max() ?? 0).squareRoot()
                var bound = outer * inner
                if power == 2 { bound *= inner }
                if model.gatedFeedForward { bound *= try norm(.wi1) }
                // Rounded up; what is not a number is left to the check for finite weights.
                bound *= 1 + 1e-5
                experts.append(bound < Double(Self.unbounded) ? Float(bound) : Self.unbounded)
                guard model.design.hasBiases else { continue }
                func bias(_ matrix: FeedForwardMatrix) throws(CheckpointError) -> [Double] {
                    try checkpoint.stored(.bias(of: .expert(layer, expert: expert, matrix))).view().doubles
                }
                var constant =
                    try outer * bias(model.gatedFeedForward ? .wi0 : .wi).reduce(0) { $0 + $1 * $1 }.squareRoot()
                constant = try bias(.wo).reduce(constant) { max($0, constant + abs($1)) } * (1 + 1e-5)
                if power == 2 || model.gatedFeedForward { constant = Double(Self.unbounded) }
                constants.append(constant < Double(Self.unbounded) ? Float(constant) : Self.unbounded)
            }
            let degree = power + (model.gatedFeedForward ? 1 : 0)
            result.append(
                LayerOutputBounds(
                    layer: layer,
                    degree: degree,
                    experts: experts,
                    constants: model.design.hasBiases ? constants : nil
                )
            )
        }
        return result
    }
}

extension TensorView {
    /// The elements of a tensor of a weight's type.
    fileprivate var doubles: [Double] {
        self.withUnsafeBytes { bytes in (0..<bytes.count / self.dtype.byteCount).map { self.dtype.double(bytes, $0) } }
    }

    /// The squared Euclidean norm of each row of a matrix of a weight's type.
    var squaredRowNorms: [Double] {
        guard self.shape.count == 2, self.shape[1] > 0 else { return [] }
        let columns = self.shape[1]
        let rowBytes = columns * self.dtype.byteCount
        return self.withUnsafeBytes { bytes in
            (0..<self.shape[0])
                .map { row in
                    let start = row * rowBytes
                    return self.dtype.sumOfSquares(UnsafeRawBufferPointer(rebasing: bytes[start..<start + rowBytes]))
                }
        }
    }
}

extension DType {
    /// The sum of the squares of a weight type's elements; four sums, so that no addition waits for the one before.
    fileprivate func sumOfSquares(_ bytes: UnsafeRawBufferPointer) -> Double {
        let count = bytes.count / self.byteCount
        var sums = (0.0, 0.0, 0.0, 0.0)
        var index = 0
        while index + 4 <= count {
            let values = (
                self.double(bytes, index), self.double(bytes, index + 1), self.double(bytes, index + 2),
                self.double(bytes, index + 3)
            )
            sums.0 += values.0 * values.0
            sums.1 += values.1 * values.1
            sums.2 += values.2 * values.2
            sums.3 += values.3 * values.3
            index += 4
        }
        while index < count {
            let value = self.double(bytes, index)
            sums.0 += value * value
            index += 1
        }
        return sums.0 + sums.1 + sums.2 + sums.3
    }
}
