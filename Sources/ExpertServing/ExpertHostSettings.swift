// SPDX-License-Identifier: Apache-2.0

package import ServiceKit
package import SwitchModel

/// Settings of an expert host: each is named, bounded and explained here and nowhere else.
package struct ExpertHostSettings: SettingTable {
    /// The settings.
    package static let table = ExpertHostSettings()

    package let shard = Setting.texts(
        "shard",
        placeholder: "dir",
        see: "Several shards on one host",
        "A shard's folder or its https:// address, or a whole checkpoint; may be given several times. With --train: what "
            + "adapters are trained beside."
    )
    package let checkpoints = Setting.text(
        "checkpoints",
        placeholder: "dir",
        see: "Changing the checkpoint",
        "A folder with checkpoints, each in a folder of its own, which a rollout may load beside the shards."
    )
    package let listen = Setting.listen(default: ListenAddress(host: "127.0.0.1", port: 7401))
    package let compute = ComputeSettings()
    package let dtype = Setting.choice(
        "dtype",
        of: WeightStorage.allCases,
        default: .checkpoint,
        name: \.rawValue,
        placeholder: "type",
        see: "Precision",
        "How weights are kept in memory; checkpoint keeps them as stored, and a packed shard keeps its own type."
    )
    package let prefault = Setting.toggle(
        "prefault",
        see: "Packed shards",
        "Read packed shards once and compare their checksums before serving."
    )
    package let maxRows = Setting.whole(
        "max-rows",
        in: 1...1_048_576,
        default: 16_384,
        placeholder: "rows",
        "Largest number of token rows per call; larger calls are refused with RESOURCE_EXHAUSTED."
    )
    package let queueLimit = Setting.whole(
        "queue-limit",
        in: 1...65_536,
        default: 256,
        placeholder: "count",
        "Calls that may wait; further calls are refused with RESOURCE_EXHAUSTED."
    )
    package let batchRows = Setting.whole(
        "batch-rows",
        in: 1...1_048_576,
        default: 1024,
        placeholder: "rows",
        see: "Several gateways on the same hosts",
        "Compute waiting calls in one pass up to this many token rows; 1 computes each call alone."
    )
    package let batchWindow = Setting.time(
        "batch-window-us",
        .microseconds,
        in: 0...1_000_000,
        default: 1000,
        "How long an idle host may hold a call back when it expects another gateway's call for the same layer; 0 never "
            + "does."
    )
    package let train = Setting.toggle(
        "train",
        see: "Training hosts",
        "Hold experts that a trainer trains, in place of serving a shard; the trainer brings what --shard has not."
    )
    package let snapshots = Setting.text(
        "snapshots",
        placeholder: "dir",
        see: "Training hosts",
        "With --train: the folder on this machine for snapshots of weights and optimizer state."
    )
    package let zone = Setting.zone("Where the host runs, for gateways that prefer their own zone.")
    package let receiveBudget = Setting.receiveBudget(atLeast: 128 << 20, default: 512 << 20)
    package let drain = Setting.time(
        "drain-seconds",
        .seconds,
        in: 0...3600,
        default: 20,
        "How long calls may take to finish after SIGTERM."
    )
}

extension ExpertHostSettings {
    /// Refuses settings that have no meaning for a host that trains, or for one that serves.
    ///
    /// - Parameter settings: Flags, environment and file.
    /// - Returns: Whether the host trains.
    /// - Throws: `Settings.Failure` naming the setting.
    package func isTraining(_ settings: Settings) throws -> Bool {
        guard try settings.value(self.train) else {
            guard try settings.value(self.snapshots) == nil else {
                throw Settings.Failure("snapshots is for hosts that train; add --train, or leave it out")
            }
            return false
        }
        for (key, isSet) in [
            (self.dtype.key, settings.isSet(self.dtype)),
            (self.checkpoints.key, settings.isSet(self.checkpoints)),
            (self.prefault.key, settings.isSet(self.prefault)),
            (self.maxRows.key, settings.isSet(self.maxRows)),
            (self.queueLimit.key, settings.isSet(self.queueLimit)),
            (self.batchRows.key, settings.isSet(self.batchRows)),
            (self.batchWindow.key, settings.isSet(self.batchWindow)), (self.zone.key, settings.isSet(self.zone)),
        ] where isSet {
            throw Settings.Failure("\(key) is for hosts that serve; leave it out, or start the host without --train")
        }
        return true
    }
}

extension ExpertHostConfiguration {
    /// Makes the configuration that the settings ask for; opens no file.
    ///
    /// - Parameter settings: Flags, environment and file.
    /// - Throws: `Settings.Failure` naming the setting that is missing or wrong, and ``ExpertHostError``.
    package init(_ settings: Settings) throws {
        let table = ExpertHostSettings.table
        let shards = try settings.value(table.shard)
        guard !shards.isEmpty else {
            throw Settings.Failure("no shard is given: pass --shard DIR or set \(table.shard.definition.variable)")
        }
        self.init(shardDirectories: shards)
        self.checkpointsDirectory = try settings.value(table.checkpoints)
        let listen = try settings.value(table.listen)
        self.host = listen.boundHost
        self.port = listen.port
        self.threads = try settings.value(table.compute.threads)
        self.pinsThreads = try settings.value(table.compute.pinThreads)
        self.spin = try settings.value(table.compute.spin)
        self.storage = try settings.value(table.dtype)
        self.prefault = try settings.value(table.prefault)
        self.maxRowsPerCall = try settings.value(table.maxRows)
        self.queueLimit = try settings.value(table.queueLimit)
        self.batchRowLimit = try settings.value(table.batchRows)
        self.batchWindow = try settings.value(table.batchWindow)
        self.zone = try settings.value(table.zone)
        self.receiveBudgetBytes = try settings.value(table.receiveBudget)
        self.drainTimeout = try settings.value(table.drain)
        self.reflection = try !settings.value(ServiceSettings.table.noReflection)
        try self.validate()
    }
}
