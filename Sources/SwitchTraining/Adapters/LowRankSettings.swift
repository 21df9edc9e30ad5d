// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes

/// What a LoRA adapter changes, by PEFT's names and defaults.
public struct LowRankSettings: Sendable, Hashable, Codable {
    /// The greatest rank.
    public static let mostRank = 65_536

    /// The word that stands for every matrix but an output projection.
    public static let allLinear = "all-linear"

    /// The rank of the products (`r`).
    public var rank = 8

    /// What the products are multiplied with, times the rank (`lora_alpha`).
    public var alpha = 8.0

    /// The matrices to change (`target_modules`): ends of modules' names (`q`, `wo`, `experts.expert_3.wi`), patterns of whole
    /// names in which `*` stands for any characters (`*.experts.*`, `decoder.*.q`), or ``allLinear`` alone.
    public var targets = ["q", "v"]

    /// Whether the scale is `alpha / sqrt(rank)` instead of `alpha / rank` (`use_rslora`).
    ///
    /// From D. Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA" (2023).
    public var isRankStabilized = false

    /// Dropout of the adapter's own inputs (`lora_dropout`); 0, since the product is added to the weights once a step.
    public var dropout = 0.0

    /// PEFT's defaults: rank 8 and alpha 8, for the matrices of queries and values.
    public init() {}

    /// Refuses what is out of range.
    ///
    /// - Throws: `invalidSettings` with the field, its limits and its value.
    public func validate() throws(TrainingError) {
        func check(_ holds: Bool, _ message: String) throws(TrainingError) {
            guard holds else { throw TrainingError(code: .invalidSettings, message: message) }
        }
        try check(
            (1...Self.mostRank).contains(self.rank),
            "the adapter's rank must be from 1 to \(Self.mostRank), but is \(self.rank); 4 to 64 is usual"
        )
        try check(
            self.alpha > 0 && self.alpha <= 1e6,
            "the adapter's alpha must be above 0 and at most 1000000, but is \(self.alpha); the rank or twice the rank is usual"
        )
        try check(
            self.dropout == 0,
            "the adapter's dropout (lora_dropout) is \(self.dropout), but only 0 is supported: the adapter is added to the"
                + " weights once a step, so that its inputs are not there to drop from; use the model's dropout instead"
        )
        try check(
            !self.targets.isEmpty && self.targets.allSatisfy { !$0.isEmpty },
            "the adapter's targets must be names of matrices, such as q,v or wi,wo; name at least one, and none empty"
        )
        try check(
            self.targets == [Self.allLinear] || !self.targets.contains(Self.allLinear),
            "the adapter's target \(Self.allLinear) stands for all matrices; name it alone"
        )
    }

    /// The modules of a model that the adapter changes.
    ///
    /// - Parameter layout: The model's layout.
    /// - Returns: For each entry whether it is changed.
    /// - Throws: `invalidSettings` for a target that names no matrix.
    func chosen(in layout: ParameterLayout) throws(TrainingError) -> [Bool] {
        let modules = layout.entries.map { Self.module($0) }
        if self.targets == [Self.allLinear] {
            return zip(layout.entries, modules).map { entry, module in module != nil && entry.kind != .head }
        }
        for target in self.targets where !modules.contains(where: { $0.map { Self.names(target, $0) } ?? false }) {
            let known = Set(modules.compactMap { $0 }.map(Self.lastPart)).sorted().joined(separator: ", ")
            let isOther = layout.entries.contains { Self.names(target, Self.name($0)) }
            throw TrainingError(
                code: .invalidSettings,
                message:
                    "the adapter's target \"\(target.prefix(120))\" "
                    + (isOther
                        ? "is an embedding, a position bias or a norm, which an adapter does not change"
                        : "names no matrix of the model") + "; the model has \(known), and * stands for any characters"
            )
        }
        return modules.map { module in
            guard let module else { return false }
            return self.targets.contains { Self.names($0, module) }
        }
    }

    /// The modules of some of a model's experts that the adapter changes.
    ///
    /// - Parameters:
    ///   - layout: The tensors of the experts.
    ///   - configuration: The model, of which ``targets`` name matrices.
    /// - Returns: For each entry whether it is changed.
    /// - Throws: `invalidSettings` for a setting out of range or a target that names no matrix of the model.
    func targets(in layout: ParameterLayout, of configuration: ModelConfiguration) throws(TrainingError) -> [Bool] {
        try self.validate()
        let model = try ParameterLayout(configuration)
        let names = zip(model.entries, try self.chosen(in: model)).filter(\.1).map(\.0.name)
        let chosen = Set(names)
        return layout.entries.map { chosen.contains($0.name) }
    }

    /// What `target_modules` says of the modules that were chosen.
    func configuredTargets(_ modules: [String]) -> [String] {
        if self.targets == [Self.allLinear] { return Set(modules.map(Self.lastPart)).sorted() }
        // PEFT has no wildcards: it gets the names.
        return self.targets.contains { $0.contains("*") } ? modules : self.targets
    }

    /// The name of the module that a matrix belongs to; nil for a tensor that an adapter cannot change.
    static func module(_ entry: ParameterLayout.Entry) -> String? {
        guard entry.shape.count == 2, entry.name.hasSuffix(".weight") else { return nil }
        switch entry.kind {
        case .attention, .dense, .expert, .router, .head: return self.name(entry)
        case .embedding, .norm, .relativeBias: return nil
        }
    }

    private static func name(_ entry: ParameterLayout.Entry) -> String {
        entry.name.hasSuffix(".weight") ? String(entry.name.dropLast(7)) : entry.name
    }

    private static func lastPart(_ module: String) -> String {
        module.split(separator: ".").last.map(String.init) ?? module
    }

    private static func names(_ target: String, _ module: String) -> Bool {
        target.contains("*")
            ? WeightDecay.fits(target, module) : module == target || module.hasSuffix("." + target)
    }
}
