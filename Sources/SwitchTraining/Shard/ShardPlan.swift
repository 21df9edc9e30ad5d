// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchyardTypes

/// What makes new weights of gradients, with its settings.
public enum OptimizerPlan: Sendable, Hashable, Codable {
    /// AdamW.
    case adamW(AdamW.Settings)
    /// Adafactor.
    case adafactor(Adafactor.Settings)
    /// Adam as labml computes it: ``AdamW`` with labml's place of epsilon, and a step for every tensor in every step.
    case adam(AdamW.Settings)

    /// Makes the optimizer, which has seen nothing.
    ///
    /// - Parameter layout: The tensors to train.
    /// - Returns: The optimizer.
    /// - Throws: `invalidSettings` for a setting out of range.
    public func optimizer(of layout: ParameterLayout) throws(TrainingError) -> any Optimizer {
        switch self {
        case .adamW(let settings): try AdamW(layout: layout, settings: settings)
        case .adafactor(let settings): try Adafactor(layout: layout, settings: settings)
        case .adam(let settings): try AdamW(layout: layout, settings: settings, form: .labml)
        }
    }

    /// The same without decays of tensors that are not in a layout, since those would be an error there.
    func within(_ layout: ParameterLayout) -> OptimizerPlan {
        func kept(_ decay: WeightDecay) -> WeightDecay {
            WeightDecay(
                decay.value,
                groups: decay.groups.filter { group in
                    layout.entries.contains { WeightDecay.fits(group.pattern, $0.name) }
                }
            )
        }
        switch self {
        case .adamW(var settings):
            settings.decay = kept(settings.decay)
            return .adamW(settings)
        case .adafactor(var settings):
            settings.decay = kept(settings.decay)
            return .adafactor(settings)
        case .adam(var settings):
            settings.decay = kept(settings.decay)
            return .adam(settings)
        }
    }
}

/// What decides the state of a shard, beside its first weights: which experts it holds, and how they learn.
public struct ShardPlan: Sendable, Hashable, Codable {
    /// Experts of one sparse layer.
    public struct Held: Sendable, Hashable, Codable {
        /// Whether the layer is in the decoder.
        public var isDecoder: Bool
        /// The layer's block.
        public var block: Int
        /// The experts, ascending.
        public var experts: [Int]

        /// The layer.
        public var layer: SparseLayer { SparseLayer(stack: self.isDecoder ? .decoder : .encoder, block: self.block) }

        /// Names experts of a layer.
        ///
        /// - Parameters:
        ///   - layer: The layer.
        ///   - experts: The experts, ascending.
        public init(_ layer: SparseLayer, _ experts: [Int]) {
            self.isDecoder = layer.stack == .decoder
            self.block = layer.block
            self.experts = experts
        }
    }

    /// What an adapter is trained beside, and which one.
    public struct Adapter: Sendable, Hashable, Codable {
        /// The adapter of the whole model, of which a shard has the part that changes its experts.
        public var settings: LowRankSettings
        /// The fingerprint of the checkpoint whose weights stay as they are.
        public var base: UInt64

        /// Describes an adapter.
        ///
        /// - Parameters:
        ///   - settings: The adapter of the whole model.
        ///   - base: The fingerprint of the checkpoint whose weights stay as they are.
        public init(_ settings: LowRankSettings, base: UInt64) {
            self.settings = settings
            self.base = base
        }
    }

    /// The experts, by layer in the model's order.
    public var held: [Held]
    /// The LoRA adapter that is trained in place of the experts' weights; nil to train those.
    public var adapter: Adapter?
    /// What makes new weights of gradients.
    public var optimizer: OptimizerPlan
    /// Probability of dropping an element of an expert's hidden row.
    public var dropout: Double
    /// The numbers that a step computes with.
    public var precision: TrainingPrecision
    /// What the random numbers of the run come from.
    public var seed: UInt64

    /// Describes a shard.
    ///
    /// - Parameters:
    ///   - held: The experts, by layer in the model's order.
    ///   - optimizer: What makes new weights of gradients.
    ///   - settings: How the run trains.
    ///   - adapter: The LoRA adapter that is trained in place of the experts' weights; nil to train those.
    public init(
        held: [Held],
        optimizer: OptimizerPlan,
        settings: TrainingSettings,
        adapter: Adapter? = nil
    ) {
        self.held = held
        self.adapter = adapter
        self.optimizer = optimizer
        self.dropout = settings.expertDropout ?? settings.dropout
        self.precision = settings.precision
        self.seed = settings.seed
    }

    /// Divides a model's experts among shards, as evenly as can be, in consecutive runs as `switchyard shard` does.
    ///
    /// - Parameters:
    ///   - configuration: The model.
    ///   - count: Shards, at least 1.
    ///   - optimizer: What makes new weights of gradients.
    ///   - settings: How the run trains.
    ///   - adapter: The LoRA adapter that is trained in place of the experts' weights; nil to train those.
    /// - Returns: The shards.
    /// - Throws: `unsupported` for a model without experts, `invalidSettings` for more shards than experts.
    public static func shards(
        _ configuration: ModelConfiguration,
        count: Int,
        optimizer: OptimizerPlan,
        settings: TrainingSettings,
        adapter: Adapter? = nil
    ) throws(TrainingError) -> [ShardPlan] {
        guard configuration.hasExperts else {
            throw TrainingError(
                code: .unsupported,
                message: "the model has no experts that hosts could train; leave out the pools"
            )
        }
        guard (1...configuration.expertCount).contains(count) else {
            throw TrainingError(
                code: .invalidSettings,
                message:
                    "\(count) pools are given, but must be from 1 to \(configuration.expertCount), the experts of a layer;"
                    + " name replicas of one pool as NAME=TARGET,TARGET"
            )
        }
        let experts = configuration.expertCount
        return (0..<count)
            .map { index in
                let range = index * experts / count..<(index + 1) * experts / count
                return ShardPlan(
                    held: configuration.sparseLayers.map { Held($0, Array(range)) },
                    optimizer: optimizer,
                    settings: settings,
                    adapter: adapter
                )
            }
    }

    /// Refuses what is out of range for a model.
    ///
    /// - Parameter configuration: The model.
    /// - Throws: `invalidSettings` that names the field, its limits and its value.
    public func validate(_ configuration: ModelConfiguration) throws(TrainingError) {
        func check(_ holds: Bool, _ message: @autoclosure () -> String) throws(TrainingError) {
            guard holds else { throw TrainingError(code: .invalidSettings, message: message()) }
        }
        try check(!self.held.isEmpty, "the shard holds no experts; give it some of each sparse layer")
        try check(
            self.dropout >= 0 && self.dropout < 1,
            "dropout is \(self.dropout); it must be at least 0 and below 1"
        )
        let layers = configuration.sparseLayers
        try check(
            Set(self.held.map(\.layer)).count == self.held.count,
            "a sparse layer is named twice; name each once, with all its experts"
        )
        for held in self.held {
            try check(layers.contains(held.layer), "\(held.layer) is no sparse layer of the model")
            let experts = held.experts
            try check(
                !experts.isEmpty && zip(experts, experts.dropFirst()).allSatisfy { $0 < $1 }
                    && experts.allSatisfy { (0..<configuration.expertCount).contains($0) },
                "the experts of \(held.layer) must be ascending and from 0 to \(configuration.expertCount - 1)"
            )
        }
    }
}

/// The sequence of a step that a row belongs to, and its place there: what dropout depends on.
public struct RowPlace: Sendable, Hashable {
    /// The sequence's index in the step.
    public var sequence: UInt32
    /// The token's position in its sequence.
    public var position: UInt32

    /// Names a place.
    ///
    /// - Parameters:
    ///   - sequence: The sequence's index in the step.
    ///   - position: The token's position in its sequence.
    public init(sequence: UInt32, position: UInt32) {
        self.sequence = sequence
        self.position = position
    }
}
