// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// The weights that a new model begins with.
public enum Initialisation: Sendable, Hashable {
    /// The paper's: truncated normal numbers with `sqrt(scale / fan-in)`, drawn again beyond two deviations.
    ///
    /// From W. Fedus, B. Zoph and N. Shazeer, "Switch Transformers" (JMLR 2022), section 2.4, whose scale is 0.1. That is
    /// for matrices that multiply: attention, feed-forward networks, routers. What the paper leaves open: embeddings and
    /// output projections are normal with a deviation of 1 and relative biases with `width^-0.5`, as T5's, norms are 1 and
    /// biases 0.
    case paper(scale: Double = 0.1)

    /// That of `SwitchTransformersPreTrainedModel._init_weights` of transformers 5.23, and for dense T5 of its own: normal
    /// numbers times a factor (`initializer_factor`).
    ///
    /// Its oddity is kept: experts' output matrices have `width^-0.5`, dense ones `inner width^-0.5`.
    case transformers(factor: Double = 1)

    /// PyTorch's own, as the modules of labml's Switch Transformer have it (`labml_nn/transformers/switch/experiment.py` of
    /// labml_nn 0.5.1 sets none itself).
    ///
    /// `torch.nn.Embedding` is normal with a deviation of 1; weights and biases of `torch.nn.Linear` are uniform within
    /// `fan-in^-0.5`; norms are 1 and their biases 0. labml copies one layer into all and, within it, one expert into all
    /// (`clone_module_list`), so that they begin alike; so do these. The distributions are the same, the numbers are not.
    case labml

    /// How a tensor is drawn.
    enum Draw: Hashable {
        /// All elements alike.
        case constant(Float)
        /// Normal with a standard deviation, drawn again beyond two of them where it is truncated.
        case normal(Double, truncated: Bool)
        /// Uniform within a bound of 0.
        case uniform(Double)
    }

    /// Fills a new model's weights.
    ///
    /// - Parameters:
    ///   - weights: The weights.
    ///   - keyWidth: Elements of one head's query (`d_kv`).
    ///   - seed: The seed; each element is a function of it, the tensor's name and its place.
    ///   - pool: The threads.
    /// - Throws: `invalidSettings` for a scale or factor that is not above 0.
    public func fill(
        _ weights: ParameterBuffer,
        keyWidth: Int,
        seed: UInt64,
        pool: WorkPool
    ) throws(TrainingError) {
        let size =
            switch self {
            case .paper(let scale): scale
            case .transformers(let factor): factor
            case .labml: 1.0
            }
        guard size > 0, size <= 1000 else {
            throw TrainingError(
                code: .invalidSettings,
                message: "the scale of new weights is \(size); it must be above 0, and is 0.1 in the paper"
            )
        }
        let draws = WeightDraws(seed: seed)
        let width = weights.layout.index(of: .sharedEmbedding).map { weights.layout.entries[$0].shape[1] } ?? 1
        for (index, entry) in weights.layout.entries.enumerated() {
            let name = self == .labml ? self.original(of: entry, in: weights.layout) : entry.name
            switch self.draw(entry, in: weights.layout, width: width, keyWidth: keyWidth) {
            case .constant(let value):
                weights[index].update(repeating: value)
            case .normal(let deviation, let truncated):
                draws.fill(
                    weights[index],
                    name: name,
                    deviation: deviation,
                    truncated: truncated,
                    pool: pool
                )
            case .uniform(let bound):
                draws.fill(weights[index], name: name, uniformWithin: bound)
            }
        }
    }

    /// The name of the tensor that labml copies into a tensor's place: that of the first layer and its first expert.
    private func original(of entry: ParameterLayout.Entry, in layout: ParameterLayout) -> String {
        layout.index(of: entry.role.original).map { layout.entries[$0].name } ?? entry.name
    }

    /// How a tensor is drawn.
    ///
    /// - Parameters:
    ///   - entry: The tensor.
    ///   - layout: Where it and its matrix are, if it is a bias.
    ///   - width: Elements of a hidden state.
    ///   - keyWidth: Elements of one head's query.
    /// - Returns: The distribution.
    func draw(_ entry: ParameterLayout.Entry, in layout: ParameterLayout, width: Int, keyWidth: Int) -> Draw {
        let fanIn = Double(entry.shape.last ?? 1)
        switch self {
        case .paper(let scale):
            switch entry.kind {
            case _ where entry.role.matrix != nil: return .constant(0)
            case .norm: return .constant(1)
            case .embedding, .head: return .normal(1, truncated: false)
            case .relativeBias: return .normal(1 / Double(width).squareRoot(), truncated: false)
            case .router, .attention, .dense, .expert:
                return .normal((scale / fanIn).squareRoot(), truncated: true)
            }
        case .labml:
            switch (entry.kind, entry.role) {
            case (.norm, .bias): return .constant(0)
            case (.norm, _): return .constant(1)
            case (.embedding, _): return .normal(1, truncated: false)
            default:
                let inputs = entry.role.matrix.flatMap { layout.index(of: $0) }
                    .map { layout.entries[$0].shape.last ?? 1 }
                return .uniform(1 / Double(inputs ?? entry.shape.last ?? 1).squareRoot())
            }
        case .transformers(let factor):
            return self.transformersDraw(entry, factor, width: width, keyWidth: keyWidth)
        }
    }

    private func transformersDraw(
        _ entry: ParameterLayout.Entry,
        _ factor: Double,
        width: Int,
        keyWidth: Int
    ) -> Draw {
        let fanIn = Double(entry.shape.last ?? 1)
        let deviation: Double
        switch entry.role {
        case .finalNorm, .layerNorm: return .constant(Float(factor))
        case .routerBias, .bias: return .constant(0)
        case .sharedEmbedding, .lmHead, .router: deviation = 1
        case .attention(_, _, _, .query): deviation = 1 / (fanIn * Double(keyWidth)).squareRoot()
        case .attention, .dense: deviation = 1 / fanIn.squareRoot()
        case .expert(_, _, .wo), .relativeBias: deviation = 1 / Double(width).squareRoot()
        case .expert: deviation = 1 / fanIn.squareRoot()
        }
        return .normal(factor * deviation, truncated: false)
    }
}

extension TensorRole {
    /// The matrix or norm that a bias belongs to; nil for what is no bias.
    fileprivate var matrix: TensorRole? {
        switch self {
        case .bias(let part): part
        case .routerBias(let layer): .router(layer)
        default: nil
        }
    }

    /// The same tensor of the first block, and of its first expert.
    fileprivate var original: TensorRole {
        switch self {
        case .attention(let stack, _, let kind, let projection):
            .attention(stack, block: 0, kind, projection)
        case .layerNorm(let stack, _, let norm): .layerNorm(stack, block: 0, norm)
        case .dense(let stack, _, let matrix): .dense(stack, block: 0, matrix)
        case .router(let layer): .router(SparseLayer(stack: layer.stack, block: 0))
        case .routerBias(let layer): .routerBias(SparseLayer(stack: layer.stack, block: 0))
        case .expert(let layer, _, let matrix):
            .expert(SparseLayer(stack: layer.stack, block: 0), expert: 0, matrix)
        case .bias(let part): .bias(of: part.original)
        case .sharedEmbedding, .lmHead, .finalNorm, .relativeBias: self
        }
    }
}
