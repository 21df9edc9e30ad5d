// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
public import ExpertPooling
public import RPCTransport
public import ServiceKit
public import SwitchModel

/// The configuration of a gateway.
public struct GatewayConfiguration: Sendable {
    /// The folder with the model: the gateway's part that `switchyard shard` wrote, or a whole checkpoint.
    public var modelDirectory: String

    /// The folder with checkpoints that a rollout may load beside the model, and with the record of the one to serve after a
    /// restart; nil refuses rollouts.
    public var checkpointsDirectory: String?

    /// Whether rollouts are taken from other machines too.
    public var takesRemoteRollouts = false

    /// The file that says which of the checkpoints is to be served; nil leaves that to rollouts.
    public var rolloutFile: String?

    /// What clients may call whatever is served, in dialects where requests name a model; nil if there is no such name.
    public var modelName: String?

    /// The folder of a LoRA adapter to merge into the weights of a whole checkpoint.
    public var adapterDirectory: String?

    /// Overrides for keys of the model's `config.json`.
    public var modelOverrides: [String: String] = [:]

    /// The address to listen on.
    public var host = "127.0.0.1"

    /// The port to listen on; 0 lets the system choose.
    public var port = 7400

    /// The port, bound before the weights are loaded so that a port that cannot be had is known at once; nil binds it
    /// when the service begins to listen.
    public var reservation: PortReservation?

    /// Whether clients' connections are encrypted; ``cluster`` says the same of connections to the expert hosts.
    public var security = ServerSecurity.plaintext

    /// Accepts only calls with a known token; nil accepts every call.
    public var tokens: TokenGate?

    /// How weights are kept in memory.
    public var storage = GatewaySettings.table.dtype.defaultValue

    /// Threads that compute.
    public var threads = 1

    /// Whether each of them is pinned to its own processor.
    public var pinsThreads = false

    /// The expert hosts.
    public var cluster: ExpertClusterConfiguration

    /// How the engine schedules and computes.
    public var engine = EngineConfiguration()

    /// How large requests may be.
    public var limits = RequestLimits()

    /// How long the gateway waits for a verified host for every expert before it takes requests regardless.
    public var readyTimeout = GatewaySettings.table.startupWait.defaultValue

    /// How long requests may take to finish once draining has begun.
    public var drainTimeout = GatewaySettings.table.drain.defaultValue

    /// How many connections clients may have; for more, the idlest leave.
    public var maxConnections = GatewaySettings.table.maxConnections.defaultValue

    /// The largest share of them that one host or one token may have.
    public var connectionShare = Double(GatewaySettings.table.connectionShare.defaultValue)

    /// How long a client's connection may last before it is drained; zero keeps it.
    public var maxConnectionAge = GatewaySettings.table.maxConnectionAge.defaultValue

    /// How long its calls may take to finish then.
    public var maxConnectionAgeGrace = GatewaySettings.table.maxConnectionAgeGrace.defaultValue

    /// Bytes of clients' requests that have arrived in part, or wait to be read; half of them may be one connection's.
    public var receiveBudgetBytes = GatewaySettings.table.receiveBudget.defaultValue

    /// Whether clients may ask for the services and messages through gRPC server reflection.
    public var reflection = true

    /// Creates the configuration of a gateway; everything else has its default.
    ///
    /// - Parameters:
    ///   - modelDirectory: The folder with the model.
    ///   - pools: The expert hosts.
    public init(modelDirectory: String, pools: [PoolSpecification]) {
        self.modelDirectory = modelDirectory
        self.cluster = ExpertClusterConfiguration(pools: pools)
    }

    /// Checks every value against its limits.
    ///
    /// - Throws: ``GatewayError`` naming the first value that is outside its limits.
    public func validate() throws(GatewayError) {
        guard !self.modelDirectory.isEmpty else {
            throw GatewayError(.configuration, "no model folder is given; pass --model DIR")
        }
        var names: Set<String> = []
        for pool in self.cluster.pools where !names.insert(pool.name).inserted {
            throw GatewayError(.configuration, "the pool \(pool.name) is given twice; name all its targets at once")
        }
        let table = GatewaySettings.table
        let scheduler = self.engine.scheduler
        let problems = [
            table.compute.threads.problem(with: self.threads),
            table.maxInputTokens.problem(with: self.limits.maxInputTokens),
            table.maxConnections.problem(with: self.maxConnections),
            table.connectionShare.problem(with: Float(self.connectionShare)),
            table.maxConnectionAge.problem(with: self.maxConnectionAge),
            table.maxConnectionAgeGrace.problem(with: self.maxConnectionAgeGrace),
            table.receiveBudget.problem(with: self.receiveBudgetBytes),
            table.maxDroppedFraction.problem(with: self.limits.maxDroppedFraction),
            table.maxNewTokens.problem(with: self.limits.maxNewTokens),
            table.batchSlots.problem(with: scheduler.batchSlots), table.queueLimit.problem(with: scheduler.queueLimit),
            table.guestSlots.problem(with: scheduler.guestSlots),
            table.callerShare.problem(with: Float(scheduler.callerShare)),
            table.queueTimeout.problem(with: self.limits.queueTimeout),
            table.encodeTokens.problem(with: scheduler.encodeTokensPerStep),
            table.encodeTimePerStep.problem(with: self.engine.encodeTimePerStep),
        ]
        if let problem = problems.lazy.compactMap({ $0 }).first { throw GatewayError(.configuration, problem) }
        guard self.rolloutFile == nil || self.checkpointsDirectory != nil else {
            throw GatewayError(
                .configuration,
                "rollout-file is set, but there is no folder to load its checkpoints from; pass --checkpoints DIR too"
            )
        }
        let isNameLegal = self.modelName?.utf8.allSatisfy { $0 >= 0x20 } ?? true
        if let name = self.modelName, !isNameLegal || !(1...200).contains(name.utf8.count) {
            throw GatewayError(
                .configuration,
                "model-name has \(name.utf8.count) bytes; it must be 1 to 200, none of them a control character"
            )
        }
        try Self.check("port", self.port, within: 0...65_535)
        try Self.check("the longest target in tokens", self.limits.maxTargetTokens, within: 1...65_536)
        try self.cluster.validate()
    }

    /// The configuration with the folder of the checkpoint that is recorded as served, if one is.
    ///
    /// - Returns: The configuration, and the record that changed it.
    /// - Throws: `CheckpointError` where the folder, the record or the part is missing or malformed.
    func recorded() throws(CheckpointError) -> (Self, CheckpointFolder.Record?) {
        guard let path = self.checkpointsDirectory else { return (self, nil) }
        let folder = CheckpointFolder(path: path)
        try folder.check()
        guard let record = try folder.record(of: .gateway) else { return (self, nil) }
        return (try self.serving(record.checkpoint, from: folder), record)
    }

    /// The configuration with another checkpoint's folder.
    func serving(_ checkpoint: String, from folder: CheckpointFolder) throws(CheckpointError) -> Self {
        var configuration = self
        configuration.modelDirectory = try folder.gatewayPart(of: checkpoint)
        // What the settings merge belongs to the model that they name.
        configuration.adapterDirectory = nil
        return configuration
    }

    private static func check(_ name: String, _ value: Int, within limits: ClosedRange<Int>) throws(GatewayError) {
        guard limits.contains(value) else {
            throw GatewayError(
                .configuration,
                "\(name) is \(value); it must be from \(limits.lowerBound) to \(limits.upperBound)"
            )
        }
    }
}

/// Why a gateway cannot start.
public struct GatewayError: Error, Sendable, CustomStringConvertible {
    /// The kind of error.
    public enum Code: Sendable, Hashable {
        /// A value of the configuration is outside its limits.
        case configuration
        /// The given pools differ from the placement's.
        case placement
        /// The folder's files cannot be served together, or are not a whole model where one is needed.
        case checkpoint
        /// A training run's expert hosts gave no answer, or one that cannot be trained with.
        case experts
    }

    /// The kind of error.
    public var code: Code

    /// What is wrong and what to do about it.
    public var message: String

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: The kind of error.
    ///   - message: What is wrong and what to do about it.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The message.
    public var description: String { self.message }
}
