// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchyardTypes

/// What a parameter is for, as far as optimizers and reports care.
public enum ParameterKind: Sendable, Hashable {
    /// The token embedding, which is the output projection too where they are tied.
    case embedding
    /// A norm's weights.
    case norm
    /// A stack's relative position bias.
    case relativeBias
    /// A router's matrix or bias.
    case router
    /// A matrix of an attention layer.
    case attention
    /// A matrix of a dense feed-forward network.
    case dense
    /// A matrix of one expert.
    case expert(SparseLayer, Int)
    /// An output projection of its own.
    case head
}

/// Names, shapes and places of a model's trainable tensors, in one fixed order.
///
/// The order is that of `ModelConfiguration.gatewayRoles`, followed by the experts: by layer, expert and matrix. A tied
/// output projection is no tensor of its own. A ``LowRankAdapter`` has a layout of its own, of what it trains.
public struct ParameterLayout: Sendable, Hashable {
    /// One tensor.
    public struct Entry: Sendable, Hashable {
        /// The name that transformers gives the tensor.
        public var name: String
        /// The extents, slowest first.
        public var shape: [Int]
        /// Where the elements lie in a ``ParameterBuffer``, row-major.
        public var range: Range<Int>
        /// What the tensor is for.
        public var kind: ParameterKind
        /// The tensor's place in the model; in an adapter's layout, that of the matrix that it changes.
        public var role: TensorRole
    }

    /// Elements that starts of tensors are multiples of.
    public static let alignment = 16

    /// The most elements of a layout: 2^38, which is a tebibyte.
    public static let mostElements = 1 << 38

    /// The tensors, ascending by their ranges, which do not overlap.
    public let entries: [Entry]

    /// Elements of a buffer, the gaps between tensors included.
    public let count: Int

    /// Elements of all tensors.
    public var parameterCount: Int { self.entries.reduce(0) { $0 + $1.range.count } }

    private let indices: [TensorRole: Int]

    /// Lays out a model's tensors.
    ///
    /// - Parameter configuration: The model.
    /// - Throws: `limitExceeded` for a model with more than ``mostElements`` parameters.
    public init(_ configuration: ModelConfiguration) throws(TrainingError) {
        guard configuration.parameterCount <= Self.mostElements else {
            let count = configuration.parameterCount == .max ? "over 2^63" : "\(configuration.parameterCount)"
            throw TrainingError(
                code: .limitExceeded,
                message:
                    "the configuration describes \(count) parameters, but at most \(Self.mostElements) can be trained in one"
                    + " process; choose a smaller model, or correct config.json"
            )
        }
        let roles = configuration.trainableRoles
        self.init(
            roles.map { role in
                Tensor(
                    name: configuration.name(of: role),
                    shape: configuration.shape(of: role),
                    kind: ParameterKind(role),
                    role: role
                )
            },
            indices: Dictionary(uniqueKeysWithValues: roles.enumerated().map { ($0.element, $0.offset) })
        )
    }

    /// Lays out the tensors of some of a model's experts, in the model's order.
    ///
    /// - Parameters:
    ///   - configuration: The model.
    ///   - experts: The experts, by layer.
    /// - Throws: `limitExceeded` for more than ``mostElements`` parameters.
    init(_ configuration: ModelConfiguration, experts: [ShardPlan.Held]) throws(TrainingError) {
        let held = Dictionary(experts.map { ($0.layer, Set($0.experts)) }) { first, _ in first }
        let roles = try ParameterLayout(configuration).entries
            .compactMap { entry -> TensorRole? in
                guard case .expert(let layer, let expert) = entry.kind else { return nil }
                return held[layer]?.contains(expert) == true ? entry.role : nil
            }
        self.init(
            roles.map { role in
                Tensor(
                    name: configuration.name(of: role),
                    shape: configuration.shape(of: role),
                    kind: ParameterKind(role),
                    role: role
                )
            },
            indices: Dictionary(uniqueKeysWithValues: roles.enumerated().map { ($0.element, $0.offset) })
        )
    }

    private init(entries: [Entry], count: Int, indices: [TensorRole: Int]) {
        self.entries = entries
        self.count = count
        self.indices = indices
    }

    /// The tensors that are no expert's, at the same places: what is trained where experts stay as they are.
    ///
    /// Experts come last, so an optimizer of this layout works on the buffers of the whole one, and keeps nothing of experts.
    public var withoutExperts: ParameterLayout {
        let entries = Array(self.entries.prefix { !$0.kind.isExpert })
        return ParameterLayout(
            entries: entries,
            count: self.entries.dropFirst(entries.count).first?.range.lowerBound ?? self.count,
            indices: self.indices.filter { $0.value < entries.count }
        )
    }

    /// For each entry whether it is no expert's.
    public var outsideExperts: [Bool] { self.entries.map { !$0.kind.isExpert } }

    /// A tensor that has no place yet.
    struct Tensor {
        var name: String
        var shape: [Int]
        var kind: ParameterKind
        var role: TensorRole
    }

    /// Gives tensors their places, one after the other.
    ///
    /// - Parameters:
    ///   - tensors: The tensors, at most ``mostElements`` elements together.
    ///   - indices: Which of them are a model's own.
    init(_ tensors: [Tensor], indices: [TensorRole: Int] = [:]) {
        var entries: [Entry] = []
        entries.reserveCapacity(tensors.count)
        var next = 0
        for tensor in tensors {
            let size = tensor.shape.reduce(1, *)
            entries.append(
                Entry(
                    name: tensor.name,
                    shape: tensor.shape,
                    range: next..<(next + size),
                    kind: tensor.kind,
                    role: tensor.role
                )
            )
            next += (size + Self.alignment - 1) / Self.alignment * Self.alignment
        }
        self.entries = entries
        self.count = next
        self.indices = indices
    }

    /// The index of a tensor's entry.
    ///
    /// - Parameter role: What the tensor is for.
    /// - Returns: An index into ``entries``; nil for a tensor that the model does not have, and in an adapter's layout.
    public func index(of role: TensorRole) -> Int? { self.indices[role] }

    /// The index of each entry by the tensor's name.
    public var indicesByName: [String: Int] {
        Dictionary(uniqueKeysWithValues: self.entries.enumerated().map { ($0.element.name, $0.offset) })
    }
}

extension ParameterKind {
    /// Whether the tensor is an expert's.
    var isExpert: Bool { if case .expert = self { true } else { false } }

    init(_ role: TensorRole) {
        switch role {
        case .sharedEmbedding: self = .embedding
        case .lmHead: self = .head
        case .finalNorm, .layerNorm: self = .norm
        case .attention: self = .attention
        case .relativeBias: self = .relativeBias
        case .dense: self = .dense
        case .router, .routerBias: self = .router
        case .expert(let layer, let expert, _): self = .expert(layer, expert)
        case .bias(let part): self.init(part)
        }
    }
}

extension ModelConfiguration {
    /// Every tensor of the model, in a fixed order.
    var trainableRoles: [TensorRole] {
        var roles = self.gatewayRoles
        for layer in self.sparseLayers {
            for expert in 0..<self.expertCount {
                roles += self.expertRoles(layer, expert: expert)
            }
        }
        return roles
    }
}
