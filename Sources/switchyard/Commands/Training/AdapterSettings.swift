// SPDX-License-Identifier: Apache-2.0

import ServiceKit
import SwitchTraining

/// Settings of a LoRA adapter that is trained in place of the weights.
struct AdapterSettings: SettingTable {
    static let table = AdapterSettings()

    let loraRank = Setting<Int?>
        .whole(
            "lora-rank",
            in: 1...LowRankSettings.mostRank,
            defaultInWords: "all weights are trained",
            "Train a LoRA adapter of this rank, and leave the checkpoint's weights as they are."
        )
    let loraAlpha = Setting<Double?>
        .number(
            "lora-alpha",
            in: 1e-6...1_000_000,
            defaultInWords: "the rank",
            "The adapter's product is scaled by this over its rank."
        )
    let loraTargets = Setting.texts(
        "lora-target",
        placeholder: "name",
        "A matrix that the adapter changes: q, wo, experts.expert_3.wi, *.experts.*, all-linear; may be given several times. "
            + "Without it q and v."
    )
    let loraRankStabilized = Setting.toggle(
        "lora-rank-stabilized",
        "Scale by alpha over the square root of the rank instead."
    )

    /// The adapter that settings describe; nil to train all weights.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: Its settings.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func lowRank(_ settings: Settings) throws -> LowRankSettings? {
        try self.checkExperts(settings)
        guard let rank = try settings.value(self.loraRank) else {
            for (key, isSet) in [
                (self.loraAlpha.key, settings.isSet(self.loraAlpha)),
                (self.loraTargets.key, settings.isSet(self.loraTargets)),
                (self.loraRankStabilized.key, try settings.value(self.loraRankStabilized)),
            ] where isSet {
                throw Settings.Failure("\(key) is a setting of an adapter; give \(self.loraRank.key) too")
            }
            return nil
        }
        var adapter = LowRankSettings()
        adapter.rank = rank
        adapter.alpha = try settings.value(self.loraAlpha) ?? Double(rank)
        adapter.isRankStabilized = try settings.value(self.loraRankStabilized)
        let targets = try settings.value(self.loraTargets)
        if !targets.isEmpty { adapter.targets = targets }
        return adapter
    }
}

extension AdapterSettings {
    /// Refuses an adapter beside experts that are trained otherwise, and the other way round.
    private func checkExperts(_ settings: Settings) throws {
        let choice = TrainSettings.table.experts
        let isAdapter = settings.isSet(self.loraRank)
        switch try settings.value(choice) {
        case .full where isAdapter && settings.isSet(choice):
            throw Settings.Failure(
                "\(choice.key) is full, but a LoRA adapter leaves the weights as they are; leave out \(choice.key), set it to lora,"
                    + " or leave out \(self.loraRank.key)"
            )
        case .lora where !isAdapter:
            throw Settings.Failure("\(choice.key) is lora, but no adapter is described; give \(self.loraRank.key) too")
        default: break
        }
    }
}
