// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// How a dense T5 becomes a Switch Transformer: feed-forward networks are copied to experts, routers drawn, the rest kept.
///
/// From A. Komatsuzaki et al., "Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints" (ICLR 2023,
/// arXiv 2212.05055). As there for language models, every second block becomes sparse by default, all experts of a layer
/// begin as the dense network, and routers' weights are drawn with a standard deviation of 0.02 (section 2.1 and appendix
/// A). Deviations: routing is Switch's top-1 with its capacity, where the paper's encoders use expert choice; and ``Scale``.
public struct Upcycling: Sendable, Hashable {
    /// What becomes of the router's probability, which a Switch Transformer multiplies an expert's output with.
    ///
    /// Routers begin almost undecided, so that probability is about one over the number of experts, and a sparse layer
    /// gives about that share of what the dense one gave.
    public enum Scale: String, Sendable, Hashable, CaseIterable {
        /// Experts' output matrices are multiplied with the number of experts: the model begins where the dense one was.
        ///
        /// With routers of zeros and a number of experts that is a power of 2 it computes the dense model's bits.
        case compensated
        /// Experts are exact copies, as in the paper's language models: the model begins worse, and learns to be better.
        case plain
    }

    /// The experts of each sparse layer.
    public var expertCount: Int

    /// The distance between sparse blocks of the encoder; 1 for all.
    public var encoderSparseStep = 2

    /// The distance between sparse blocks of the decoder; 1 for all.
    public var decoderSparseStep = 2

    /// Tokens of one sequence that one expert takes (`expert_capacity`).
    public var expertCapacity = 64

    /// What becomes of the router's probability.
    public var scale = Scale.compensated

    /// The standard deviation that the paper draws routers with.
    public static let routerDeviation = 0.02

    /// The most experts of a layer.
    static let mostExperts = 4096

    /// Creates settings with the defaults.
    ///
    /// - Parameter expertCount: The experts of each sparse layer.
    public init(expertCount: Int = 8) {
        self.expertCount = expertCount
    }

    /// The configuration of the Switch Transformer.
    ///
    /// - Parameters:
    ///   - dense: The dense model's.
    ///   - directory: The dense model's folder, for messages.
    /// - Returns: The configuration.
    /// - Throws: `unsupported` or `invalidArgument` with what does not fit.
    public func configuration(
        for dense: ModelConfiguration,
        directory: String
    ) throws(CheckpointError) -> ModelConfiguration {
        func check(_ holds: Bool, _ message: String, _ code: CheckpointError.Code) throws(CheckpointError) {
            guard holds else { throw CheckpointError(code: code, message: message, file: directory) }
        }
        try check(!dense.hasExperts, "has experts already; give a dense T5", .invalidArgument)
        try check(dense.hasDecoder, "is an encoder alone; give a T5 with its decoder", .unsupported)
        try check(
            dense.scalesDecoderOutputs == dense.tiedEmbeddings,
            dense.tiedEmbeddings
                ? "does not scale the decoder's outputs though its embeddings are tied, and a Switch Transformer always does"
                : "scales the decoder's outputs though its embeddings are not tied, and a Switch Transformer never does",
            .unsupported
        )
        try check(
            self.expertCount >= 2 && self.expertCount <= Self.mostExperts,
            "cannot become a model with \(self.expertCount) experts a layer; choose 2 through \(Self.mostExperts)",
            .invalidArgument
        )
        try check(
            self.expertCapacity >= 1 && self.expertCapacity <= 1 << 30,
            "cannot have experts of capacity \(self.expertCapacity); choose 1 through \(1 << 30)",
            .invalidArgument
        )
        for (stack, step) in [(Stack.encoder, self.encoderSparseStep), (.decoder, self.decoderSparseStep)] {
            let blocks = dense.blockCount(stack)
            let steps = Set((1...max(1, blocks)).map { blocks / $0 }).sorted().map(String.init)
            try check(
                Self.sparseLayers(blocks: blocks, step: step) != nil,
                "has \(blocks) \(stack) blocks, of which transformers cannot make one in \(step) sparse; choose one of the steps "
                    + steps.joined(separator: ", "),
                .invalidArgument
            )
        }
        var result = dense
        result.family = .switchTransformers
        result.decoderOutputScaling = nil
        result.sparseStepRule = .huggingFace
        result.expertCount = self.expertCount
        result.expertCapacity = self.expertCapacity
        result.encoderSparseStep = self.encoderSparseStep
        result.decoderSparseStep = self.decoderSparseStep
        try check(result.hasExperts, "has too few blocks for a sparse one; choose the sparse step 1", .invalidArgument)
        return result
    }

    /// The number of sparse layers by which transformers says a step: it divides the blocks by it, and drops the rest.
    static func sparseLayers(blocks: Int, step: Int) -> Int? {
        guard blocks >= 1, step >= 1 else { return nil }
        return (1...blocks).first { blocks / $0 == step }
    }

    /// Which experts' matrices are multiplied, and with what.
    func factor(_ matrix: FeedForwardMatrix) -> Float {
        matrix == .wo && self.scale == .compensated ? Float(self.expertCount) : 1
    }
}

extension Checkpoint {
    /// The tensors of the Switch Transformer that this dense T5 becomes.
    ///
    /// Copies of one network are views of the same memory, so the tensors take hardly more than the dense model.
    ///
    /// - Parameters:
    ///   - settings: How.
    ///   - router: Draws a router's matrix: given its name and its number of elements.
    /// - Returns: The configuration and the tensors, under the names that transformers loads.
    /// - Throws: `CheckpointError` with what does not fit, or a tensor that is missing, malformed or not finite.
    public func upcycled(
        _ settings: Upcycling,
        router: (_ name: String, _ count: Int) -> [Float]
    ) throws(CheckpointError) -> (configuration: ModelConfiguration, tensors: [TensorView]) {
        let configuration = try settings.configuration(for: self.configuration, directory: self.directory)
        var tensors: [TensorView] = []
        for role in configuration.gatewayRoles {
            if case .router = role {
                let shape = configuration.shape(of: role)
                let values = router(role.name, shape.reduce(1, *))
                let bytes = values.withUnsafeBytes { Array($0) }
                tensors.append(try TensorView(name: role.name, dtype: .float32, shape: shape, bytes: bytes))
            } else {
                tensors.append(try self.finiteTensor(role).named(role.name))
            }
        }
        for layer in configuration.sparseLayers {
            for matrix in configuration.feedForwardMatrices {
                let dense = try self.finiteTensor(.dense(layer.stack, block: layer.block, matrix))
                let copied = try dense.multiplied(by: settings.factor(matrix))
                try copied.requireFinite(in: self.directory)
                for expert in 0..<configuration.expertCount {
                    tensors.append(copied.named(TensorRole.expert(layer, expert: expert, matrix).name))
                }
            }
        }
        return (configuration, tensors)
    }

    private func finiteTensor(_ role: TensorRole) throws(CheckpointError) -> TensorView {
        let tensor = try self.tensor(role)
        try tensor.requireFinite(in: self.directory)
        return tensor
    }
}

extension TensorView {
    /// The same tensor under another name.
    ///
    /// - Parameter name: The other name.
    /// - Returns: A view of the same memory.
    public func named(_ name: String) -> TensorView {
        TensorView(name: name, dtype: self.dtype, shape: self.shape, storage: self.storage, range: self.range)
    }

    /// The tensor, each element multiplied and rounded to its type; as float32 where that is float16, which is narrow.
    fileprivate func multiplied(by factor: Float) throws(CheckpointError) -> TensorView {
        guard factor != 1 else { return self }
        let type = self.dtype == .float16 ? DType.float32 : self.dtype
        var bytes = [UInt8](repeating: 0, count: self.elementCount * type.byteCount)
        self.withUnsafeBytes { source in
            bytes.withUnsafeMutableBytes { target in
                for index in 0..<self.elementCount {
                    type.store(self.dtype.float(source, index) * factor, target, index)
                }
            }
        }
        return try TensorView(name: self.name, dtype: type, shape: self.shape, bytes: bytes)
    }
}
