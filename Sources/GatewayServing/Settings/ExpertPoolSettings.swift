// SPDX-License-Identifier: Apache-2.0

package import ExpertPooling
package import ServiceKit
package import SwitchyardTypes

/// Settings for a gateway's use of its expert pools: deadlines, hedges, retries, zones.
package struct ExpertPoolSettings: SettingTable {
    package let encoderDeadline = Setting.time(
        "encoder-deadline-ms",
        .milliseconds,
        in: 1...3_600_000,
        default: 5000,
        "How long an encoder layer waits for its experts."
    )
    package let decoderDeadline = Setting.time(
        "decoder-deadline-ms",
        .milliseconds,
        in: 1...3_600_000,
        default: 2000,
        "How long a decoder layer waits for its experts."
    )
    package let layerDeadline = Setting.list(
        "layer-deadline",
        allowed: "STACK:BLOCK=MILLISECONDS, from 1 to 3600000 ms, such as decoder:3=500",
        range: "STACK:BLOCK=MS, 1 to 3600000 ms",
        placeholder: "encoder:1=ms",
        "Deadline for a single layer; may be given several times."
    ) { ExpertPoolSettings.layerDeadline($0) }
    package let encoderDeadlineMultiple = Setting.zeroOrNumber(
        "encoder-deadline-multiple",
        in: 1...1000,
        placeholder: "factor",
        "Adapt the encoder's deadlines: this many times the 99th percentile of call times, at most the encoder's "
            + "deadline; 0 keeps them fixed."
    )
    package let decoderDeadlineMultiple = Setting.zeroOrNumber(
        "decoder-deadline-multiple",
        in: 1...1000,
        placeholder: "factor",
        "The same for the decoder."
    )
    package let shortestDeadline = Setting.time(
        "shortest-deadline-ms",
        .milliseconds,
        in: 1...3_600_000,
        default: 20,
        "Shortest adaptive deadline."
    )
    package let encoderPatience = Setting.time(
        "encoder-patience-ms",
        .milliseconds,
        in: 0...3_600_000,
        default: 500,
        "How long encoder layers wait for a pool that has lost its last host, counted from the loss."
    )
    package let decoderPatience = Setting.time(
        "decoder-patience-ms",
        .milliseconds,
        in: 0...3_600_000,
        default: 50,
        "The same for the decoder."
    )
    package let attempts = Setting.whole(
        "attempts",
        in: 1...16,
        defaultInWords: "4 in the encoder, 3 in the decoder",
        "Attempts per call, not counting hedges."
    )
    package let hedgePercent = Setting.whole(
        "hedge-percent",
        in: 0...100,
        default: 5,
        placeholder: "percent",
        "Percentage of calls that may be hedged; 0 turns hedging off."
    )
    package let auditPercent = Setting.number(
        "audit-percent",
        in: 0...100,
        default: 1,
        see: "Audits",
        "Percentage of calls whose answers are compared, bit for bit, with a second host's or the gateway's own; 0 turns audits off."
    )
    package let auditProofs = Setting.whole(
        "audit-proofs",
        in: 1...1_000_000,
        default: 20,
        placeholder: "count",
        see: "Audits",
        "Calls in a row that a quarantined host must answer with the right bits before it serves again."
    )
    package let auditMemory = Setting.whole(
        "audit-memory-bytes",
        in: 0...(1 << 40),
        default: 256 << 20,
        placeholder: "bytes",
        see: "Audits",
        "Experts that the gateway keeps loaded to give its own opinion, where its model folder holds them."
    )
    package let callsPerReplica = Setting.whole(
        "calls-per-replica",
        in: 1...4096,
        default: 64,
        placeholder: "count",
        "Calls in flight per host."
    )
    package let replicaChoice = Setting.choice(
        "replica-choice",
        of: ReplicaChoice.allCases,
        default: ExpertPoolsConfiguration.defaults.replicaChoice,
        name: { $0.rawValue },
        placeholder: "rule",
        see: "Which replica gets which rows",
        "Which host of a pool gets a layer's rows: the one that each expert prefers, or the less busy of two."
    )
    package let affinityBound = Setting.number(
        "affinity-bound",
        in: 1...1000,
        default: ExpertPoolsConfiguration.defaults.affinityBound,
        see: "Which replica gets which rows",
        "How many times its fair share of a pool's work a host may get before experts' preference for it yields."
    )
    package let zone = Setting.zone("The gateway's zone: hosts in the same zone are preferred.")
    package let mixedWeightTypes = Setting.toggle(
        "mixed-weight-types",
        "Let hosts of one pool keep weights in different types; answers then depend on the replica."
    )
    package let lookup = Setting.time(
        "lookup-seconds",
        .seconds,
        in: 1...86_400,
        default: 5,
        "Time between lookups of a dns:/// target."
    )
    package let sockets = Setting.choice(
        "expert-sockets",
        of: ExpertSockets.allCases,
        default: .auto,
        name: \.rawValue,
        placeholder: "threads",
        "Who reads and writes the hosts' sockets: the engine's thread while it waits for a layer; event-loops, which hand answers "
            + "over to it; or, with auto, the engine's thread except while other programs take its processor."
    )
    package let replicateHotExperts = Setting.toggle(
        "replicate-hot-experts",
        see: "Hot experts",
        "Place hot experts on additional pools whose hosts hold them as spares."
    )

    /// Applies the settings to a configuration.
    ///
    /// - Parameters:
    ///   - settings: Flags, environment and file.
    ///   - cluster: What to change.
    /// - Throws: `Settings.Failure` naming the setting that is wrong.
    func apply(_ settings: Settings, to cluster: inout ExpertClusterConfiguration) throws {
        var choice = cluster.choice
        choice.encoder.deadline = try settings.value(self.encoderDeadline)
        choice.decoder.deadline = try settings.value(self.decoderDeadline)
        choice.encoder.patience = try settings.value(self.encoderPatience)
        choice.decoder.patience = try settings.value(self.decoderPatience)
        let shortest = try settings.value(self.shortestDeadline)
        func adaptive(_ setting: Setting<Double>) throws -> AdaptiveDeadline? {
            let multiple = try settings.value(setting)
            return multiple == 0 ? nil : AdaptiveDeadline(multiple: multiple, shortest: shortest)
        }
        choice.encoder.adaptive = try adaptive(self.encoderDeadlineMultiple)
        choice.decoder.adaptive = try adaptive(self.decoderDeadlineMultiple)
        for deadline in try settings.value(self.layerDeadline) { choice.layerDeadlines[deadline.layer] = deadline.time }
        if let attempts = try settings.value(self.attempts) {
            choice.encoder.attempts = attempts
            choice.decoder.attempts = attempts
        }
        choice.hedgeFraction = Double(try settings.value(self.hedgePercent)) / 100
        choice.auditFraction = try settings.value(self.auditPercent) / 100
        choice.proofsToServe = try settings.value(self.auditProofs)
        cluster.auditMemoryBytes = try settings.value(self.auditMemory)
        choice.outstandingPerReplica = try settings.value(self.callsPerReplica)
        choice.replicaChoice = try settings.value(self.replicaChoice)
        choice.affinityBound = try settings.value(self.affinityBound)
        choice.zone = try settings.value(self.zone)
        choice.allowsMixedWeightTypes = try settings.value(self.mixedWeightTypes)
        cluster.choice = choice
        cluster.replicatesHotExperts = try settings.value(self.replicateHotExperts)
        cluster.lookupInterval = try settings.value(self.lookup)
        cluster.sockets = try settings.value(self.sockets)
    }

    /// Reads `encoder:1=500`.
    static func layerDeadline(_ text: String) -> LayerDeadline? {
        let sides = text.split(separator: "=", omittingEmptySubsequences: false)
        guard sides.count == 2, let milliseconds = Int(sides[1]), (1...3_600_000).contains(milliseconds) else {
            return nil
        }
        let parts = sides[0].split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let stack = Stack(name: parts[0]), let block = Int(parts[1]), block >= 0 else {
            return nil
        }
        return LayerDeadline(
            layer: SparseLayer(stack: stack, block: block),
            time: .milliseconds(milliseconds)
        )
    }
}

/// The deadline of one layer.
package struct LayerDeadline: Sendable, Hashable {
    /// The layer.
    package let layer: SparseLayer
    /// Its deadline.
    package let time: Duration
}
