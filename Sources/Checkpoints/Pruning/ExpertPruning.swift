// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// How a Switch Transformer loses its least used experts: in each sparse layer those with the greatest loads stay, and routers
/// choose among them.
///
/// Experts keep their order, and get the numbers from 0 on. A router's rows of experts that go are cut out, so their tokens go
/// to whichever expert the router finds most likely of those that stay, and all probabilities rise, since fewer share 1.
public struct ExpertPruning: Sendable, Hashable {
    /// Experts of each layer that stay.
    public var kept: Int

    /// Each layer's loads by expert: shares or numbers of tokens, on any scale of its own.
    public var loads: [SparseLayer: [Double]]

    /// Tokens of one sequence that one expert takes (`expert_capacity`); nil for what the experts that stay have room for
    /// together now: the checkpoint's, times all experts over those that stay, rounded up.
    public var expertCapacity: Int?

    /// Creates settings.
    ///
    /// - Parameters:
    ///   - kept: Experts of each layer that stay.
    ///   - loads: Each layer's loads by expert.
    public init(kept: Int, loads: [SparseLayer: [Double]]) {
        self.kept = kept
        self.loads = loads
    }

    /// The number of experts that a share of them is, at least 1.
    ///
    /// - Parameters:
    ///   - share: The share, above 0 and at most 1.
    ///   - experts: All experts of a layer.
    /// - Returns: The number, rounded to the nearest.
    public static func count(_ share: Double, of experts: Int) -> Int {
        max(1, min(experts, Int((share * Double(experts)).rounded())))
    }

    /// The experts of each layer that stay, ascending; of equal loads the lower number stays.
    ///
    /// - Parameters:
    ///   - model: The model's configuration.
    ///   - directory: The model's folder, for messages.
    /// - Returns: The experts by layer.
    /// - Throws: `invalidArgument` with what does not fit.
    public func experts(
        of model: ModelConfiguration,
        directory: String
    ) throws(CheckpointError) -> [SparseLayer: [Int]] {
        func check(_ holds: Bool, _ message: @autoclosure () -> String) throws(CheckpointError) {
            guard holds else { throw CheckpointError(code: .invalidArgument, message: message(), file: directory) }
        }
        try check(model.hasExperts, "has no experts to remove; give a Switch Transformer")
        try check(
            model.family == .switchTransformers,
            "is of the type \(model.family.rawValue), whose experts are not pruned; give a Switch Transformer of T5's shape"
        )
        try check(
            self.kept >= 1 && self.kept <= model.expertCount,
            "has \(model.expertCount) experts in a layer, of which \(self.kept) cannot stay; keep 1 through \(model.expertCount)"
        )
        if let expertCapacity {
            try check(
                expertCapacity >= 1 && expertCapacity <= 1 << 30,
                "cannot have experts of capacity \(expertCapacity); choose 1 through \(1 << 30)"
            )
        }
        var result: [SparseLayer: [Int]] = [:]
        for layer in model.sparseLayers {
            let loads = self.loads[layer] ?? []
            try check(
                loads.count == model.expertCount,
                "has \(model.expertCount) experts in layer \(layer), but there are loads of \(loads.count); measure this model"
            )
            try check(
                loads.allSatisfy { $0.isFinite && $0 >= 0 } && loads.contains { $0 > 0 },
                "has no token in the loads of layer \(layer), or one that is no number; measure it on more data"
            )
            let order = loads.indices.sorted { loads[$0] > loads[$1] || (loads[$0] == loads[$1] && $0 < $1) }
            result[layer] = order.prefix(self.kept).sorted()
        }
        return result
    }

    /// The share of a layer's tokens whose expert stays.
    ///
    /// - Parameters:
    ///   - layer: The layer.
    ///   - experts: The experts that stay.
    /// - Returns: The share, from 0 to 1.
    public func share(_ layer: SparseLayer, of experts: [Int]) -> Double {
        let loads = self.loads[layer] ?? []
        let total = loads.reduce(0, +)
        return total > 0 ? experts.reduce(0) { $0 + loads[$1] } / total : 0
    }

    /// The smaller model's configuration.
    func configuration(of model: ModelConfiguration) -> ModelConfiguration {
        var result = model
        result.expertCount = self.kept
        let (room, overflow) = model.expertCapacity.multipliedReportingOverflow(by: model.expertCount)
        result.expertCapacity =
            self.expertCapacity ?? (overflow ? model.expertCapacity : (room + self.kept - 1) / self.kept)
        return result
    }
}

extension Checkpoint {
    /// The tensors of the smaller model, under the names that transformers loads.
    ///
    /// Those of experts that stay are views of this checkpoint's memory.
    ///
    /// - Parameter pruning: Which experts stay.
    /// - Returns: The configuration and the tensors.
    /// - Throws: `CheckpointError` with what does not fit, or a tensor that is missing or malformed.
    func pruned(
        _ pruning: ExpertPruning
    ) throws(CheckpointError) -> (configuration: ModelConfiguration, tensors: [TensorView]) {
        let experts = try pruning.experts(of: self.configuration, directory: self.directory)
        let configuration = pruning.configuration(of: self.configuration)
        var tensors: [TensorView] = []
        for role in configuration.gatewayRoles {
            let tensor = try self.tensor(role).named(configuration.name(of: role))
            switch role {
            case .router(let layer), .routerBias(let layer):
                tensors.append(try tensor.rows(experts[layer] ?? []))
            default:
                tensors.append(tensor)
            }
        }
        for layer in configuration.sparseLayers {
            for (place, expert) in (experts[layer] ?? []).enumerated() {
                for matrix in configuration.feedForwardMatrices {
                    let tensor = try self.tensor(.expert(layer, expert: expert, matrix))
                    tensors.append(tensor.named(configuration.name(of: .expert(layer, expert: place, matrix))))
                }
            }
        }
        return (configuration, tensors)
    }
}

extension TensorView {
    /// A copy of some rows.
    fileprivate func rows(_ rows: [Int]) throws(CheckpointError) -> TensorView {
        let rowBytes = self.byteCount / max(1, self.shape.first ?? 1)
        let bytes = self.withUnsafeBytes { source in
            rows.flatMap { Array(source[$0 * rowBytes..<($0 + 1) * rowBytes]) }
        }
        return try TensorView(
            name: self.name,
            dtype: self.dtype,
            shape: [rows.count] + self.shape.dropFirst(),
            bytes: bytes
        )
    }
}
