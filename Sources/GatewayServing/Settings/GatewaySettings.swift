// SPDX-License-Identifier: Apache-2.0

package import BatchScheduling
internal import Checkpoints
package import ExpertPooling
package import ServiceKit
package import SwitchModel
package import SwitchyardTypes
internal import TensorKernels

/// Settings of a gateway: each is named, bounded and explained here and nowhere else.
package struct GatewaySettings: SettingTable {
    /// The settings.
    package static let table = GatewaySettings()

    package let model = Setting.text(
        "model",
        placeholder: "dir",
        see: "From an address",
        "The gateway part of a model, or its https:// address; also a whole checkpoint, or a hub id in the local cache."
    )
    package let checkpoints = Setting.text(
        "checkpoints",
        placeholder: "dir",
        see: "Changing the checkpoint",
        "A folder with checkpoints, each in a folder of its own, which switchyard rollout may load beside the model."
    )
    package let remoteRollouts = Setting.toggle(
        "remote-rollouts",
        see: "Changing the checkpoint",
        "Take rollouts from other machines too, from every caller that the listener takes."
    )
    package let rolloutFile = Setting.text(
        "rollout-file",
        placeholder: "file",
        see: "Changing the checkpoint",
        "A file that says which of the checkpoints to serve, and which beside it; changes are followed."
    )
    package let modelName = Setting.text(
        "model-name",
        placeholder: "name",
        see: "Changing the checkpoint",
        "What requests that name a model may call whatever is served, besides the checkpoint's own name."
    )
    package let mergeAdapter = Setting.text(
        "merge-adapter",
        placeholder: "dir",
        see: "Checkpoints",
        "Merge this LoRA adapter into a whole checkpoint's weights: a folder, or a hub id in the local cache."
    )
    package let pool = Setting.list(
        "pool",
        allowed: "NAME=TARGET[,TARGET], with targets such as host:port, unix:/path, dns:///name:port or file:///path",
        range: "NAME=TARGET[,TARGET]",
        placeholder: "name=target[,target]",
        see: "Replicas that come and go",
        "A pool of expert hosts, once per pool; a target is host:port, unix:/path, dns:///name:port or file:///path."
    ) { try PoolSpecification(parsing: $0) }
    package let listen = Setting.listen(default: ListenAddress(host: "127.0.0.1", port: 7400))
    package let compute = ComputeSettings()
    package let dtype = Setting.choice(
        "dtype",
        of: WeightStorage.allCases,
        default: .checkpoint,
        name: \.rawValue,
        placeholder: "type",
        see: "Precision",
        "How weights are kept in memory; checkpoint keeps them as stored, and routers are always float32."
    )
    package let wireDtype = Setting.choice(
        "wire-dtype",
        of: DType.rows,
        default: .float32,
        name: { "\($0)" },
        placeholder: "type",
        see: "Precision",
        "How token rows travel to the expert hosts and back."
    )
    package let batchSlots = Setting.whole(
        "batch-slots",
        in: 1...4096,
        default: 32,
        placeholder: "rows",
        "Decoder rows that run at once; a request takes one per beam or returned sequence."
    )
    package let queueLimit = Setting.whole(
        "queue-limit",
        in: 1...1_000_000,
        default: 64,
        placeholder: "count",
        "Requests that may wait; further requests are refused with RESOURCE_EXHAUSTED and a retry hint."
    )
    package let queueTimeout = Setting.time(
        "queue-timeout-ms",
        .milliseconds,
        in: 0...86_400_000,
        default: 0,
        "How long a request that does not say may wait for batch slots; 0 waits as long as its deadline allows."
    )
    package let defaultPriority = Setting.choice(
        "default-priority",
        of: CallPriority.allCases,
        default: .normal,
        name: \.name,
        placeholder: "priority",
        see: "Fair turns",
        "The priority of requests that name none, among those of the same caller."
    )
    package let callerShare = Setting.fraction(
        "caller-share",
        default: 0.75,
        "Largest share of the batch slots that one caller may hold while others wait; a single request may take more."
    )
    package let guestSlots = Setting.whole(
        "guest-slots",
        in: 0...1024,
        default: 4,
        placeholder: "rows",
        see: "Fair turns",
        "Decoder rows beside batch-slots for callers that hold none, so that they need not wait for another's long requests."
    )
    package let encodeTokens = Setting.whole(
        "encode-tokens",
        in: 1...1_000_000,
        default: 2048,
        placeholder: "count",
        "Input tokens that may join in one step."
    )
    package let encodeTimePerStep = Setting.time(
        "encode-ms-per-step",
        .milliseconds,
        in: 0...60_000,
        default: 50,
        "How much encoding new requests may lengthen a step while others decode; every step encodes at least one block."
    )
    package let overlap = Setting.choice(
        "overlap",
        of: EngineConfiguration.Overlap.allCases,
        default: .automatic,
        name: \.rawValue,
        placeholder: "mode",
        "Let two halves of a decoder step take turns, so that one computes while the other waits for experts; auto does so "
            + "where it measured a gain."
    )
    package let maxInputTokens = Setting.whole(
        "max-input-tokens",
        in: 1...1_048_576,
        default: 2048,
        placeholder: "count",
        "Longest input in tokens; a longer one is refused."
    )
    package let maxNewTokens = Setting.whole(
        "max-new-tokens",
        in: 1...GenerationParameters.maximumNewTokens,
        default: 1024,
        placeholder: "count",
        "Largest max_new_tokens of a request."
    )
    package let maxDroppedFraction = Setting.fraction(
        "max-dropped-fraction",
        default: 0.5,
        "Largest fraction of its routed tokens that hosts may lose before a request fails, unless its own policy says "
            + "otherwise; 1 accepts any loss, and what an expert's capacity drops never counts."
    )
    package let capacity = Setting.parsed(
        "capacity",
        default: CapacityPolicy.checkpoint,
        written: "checkpoint",
        allowed:
            "checkpoint, unlimited, factor:NUMBER, such as factor:1.25, or floor:NUMBER, labml's, with :drawn:SEED to draw",
        range: "checkpoint, unlimited, factor:NUMBER, floor:NUMBER or floor:NUMBER:drawn:SEED",
        placeholder: "policy",
        "How many tokens an expert takes."
    ) { GatewaySettings.capacityPolicy($0) }
    package let startupWait = Setting.time(
        "startup-wait-seconds",
        .seconds,
        in: 0...86_400,
        default: 60,
        "How long to wait for a host for every expert before serving without."
    )
    package let drain = Setting.time(
        "drain-seconds",
        .seconds,
        in: 0...3600,
        default: 30,
        "How long requests may take to finish after SIGTERM."
    )
    package let maxConnections = Setting.whole(
        "max-connections",
        in: 1...100_000,
        default: 1000,
        placeholder: "count",
        "Connections of clients; for one more, the idlest one is told to leave."
    )
    package let connectionShare = Setting.fraction(
        "connection-share",
        default: 0.75,
        "Largest share of max-connections that one client's host, or one token, may have; 1 where all clients come through one "
            + "proxy."
    )
    package let maxConnectionAge = Setting.time(
        "max-connection-age-seconds",
        .seconds,
        in: 0...604_800,
        default: 0,
        "How long a client's connection may last, give or take a tenth, before the client is told to make another, so that a "
            + "balancer can spread clients again; 0 keeps it."
    )
    package let maxConnectionAgeGrace = Setting.time(
        "max-connection-age-grace-seconds",
        .seconds,
        in: 0...86_400,
        default: 300,
        "How long requests may take to finish on a connection that has reached its age."
    )
    package let receiveBudget = Setting.receiveBudget(atLeast: 16 << 20, default: 128 << 20)
    package let override = Setting.list(
        "override",
        allowed: "KEY=VALUE, such as num_decoder_layers=24",
        range: "KEY=VALUE",
        placeholder: "key=value",
        see: "Checkpoints",
        "Override a value in config.json; may be given several times."
    ) { GatewaySettings.override($0) }
    /// How it uses its expert pools.
    package let pools = ExpertPoolSettings()

    /// `checkpoint`, `unlimited`, `factor:1.25`, `floor:1.2` or `floor:1.2:drawn:7`.
    package static func capacityPolicy(_ text: String) -> CapacityPolicy? {
        switch text {
        case "checkpoint": return .checkpoint
        case "unlimited": return .unlimited
        default:
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count >= 2, let factor = Double(parts[1]), factor > 0, factor.isFinite else { return nil }
            switch (parts[0], parts.count) {
            case ("factor", 2): return .factor(factor)
            case ("floor", 2): return .floor(factor, .tokens)
            case ("floor", 4) where parts[2] == "drawn":
                return UInt64(parts[3]).map { .floor(factor, .drawn(seed: $0)) }
            default: return nil
            }
        }
    }

    /// `d_ff=1024` as a key and a value of `config.json`.
    package static func override(_ text: String) -> ConfigurationOverride? {
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else { return nil }
        return ConfigurationOverride(
            key: String(text[..<equals]),
            value: String(text[text.index(after: equals)...])
        )
    }
}

/// An override of a value in a model's `config.json`.
package struct ConfigurationOverride: Sendable, Hashable {
    /// The key in `config.json`.
    package let key: String
    /// The value.
    package let value: String
}

extension GatewayConfiguration {
    /// Makes the configuration that the settings ask for; opens no file.
    ///
    /// - Parameter settings: Flags, environment and file.
    /// - Throws: `Settings.Failure` naming the setting that is missing or wrong.
    package init(_ settings: Settings) throws {
        let table = GatewaySettings.table
        guard let model = try settings.value(table.model) else {
            throw Settings.Failure("no model is given: pass --model DIR or set \(table.model.definition.variable)")
        }
        // Whether there must be pools, the model says when it is opened.
        self.init(modelDirectory: model, pools: try settings.value(table.pool))
        self.adapterDirectory = try settings.value(table.mergeAdapter)
        self.checkpointsDirectory = try settings.value(table.checkpoints)
        self.takesRemoteRollouts = try settings.value(table.remoteRollouts)
        self.rolloutFile = try settings.value(table.rolloutFile)
        self.modelName = try settings.value(table.modelName)
        let listen = try settings.value(table.listen)
        self.host = listen.boundHost
        self.port = listen.port
        for override in try settings.value(table.override) { self.modelOverrides[override.key] = override.value }
        do {
            try ModelConfiguration.check(overrides: self.modelOverrides)
        } catch {
            throw Settings.Failure("\(table.override.definition.key): \(error)")
        }
        self.threads = try settings.value(table.compute.threads)
        self.pinsThreads = try settings.value(table.compute.pinThreads)
        self.cluster.spin = try settings.value(table.compute.spin)
        self.storage = try settings.value(table.dtype)
        self.cluster.wireType = try settings.value(table.wireDtype)
        self.cluster.allowsPlaintext = try settings.value(ListenerSecuritySettings.table.plaintext)
        self.engine.scheduler.batchSlots = try settings.value(table.batchSlots)
        self.engine.scheduler.queueLimit = try settings.value(table.queueLimit)
        self.engine.scheduler.callerShare = Double(try settings.value(table.callerShare))
        self.engine.scheduler.guestSlots = try settings.value(table.guestSlots)
        self.limits.queueTimeout = try settings.value(table.queueTimeout)
        self.limits.defaultPriority = try settings.value(table.defaultPriority)
        self.engine.scheduler.encodeTokensPerStep = try settings.value(table.encodeTokens)
        self.engine.encodeTimePerStep = try settings.value(table.encodeTimePerStep)
        self.engine.overlap = try settings.value(table.overlap)
        self.engine.capacityPolicy = try settings.value(table.capacity)
        self.limits.maxInputTokens = try settings.value(table.maxInputTokens)
        self.limits.maxNewTokens = try settings.value(table.maxNewTokens)
        self.limits.maxDroppedFraction = try settings.value(table.maxDroppedFraction)
        self.readyTimeout = try settings.value(table.startupWait)
        self.maxConnections = try settings.value(table.maxConnections)
        self.connectionShare = Double(try settings.value(table.connectionShare))
        self.maxConnectionAge = try settings.value(table.maxConnectionAge)
        self.maxConnectionAgeGrace = try settings.value(table.maxConnectionAgeGrace)
        self.receiveBudgetBytes = try settings.value(table.receiveBudget)
        self.drainTimeout = try settings.value(table.drain)
        self.reflection = try !settings.value(ServiceSettings.table.noReflection)
        try table.pools.apply(settings, to: &self.cluster)
    }
}
