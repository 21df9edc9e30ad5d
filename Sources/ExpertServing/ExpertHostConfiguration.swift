// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import RPCTransport
internal import ServiceKit
public import SwitchModel

/// The configuration of an expert host.
public struct ExpertHostConfiguration: Sendable {
    /// The folders with the experts: shards that `switchyard shard` wrote, or a whole checkpoint.
    ///
    /// All must come from one checkpoint. An expert in several of them is loaded once.
    public var shardDirectories: [String]

    /// The folder with checkpoints that gateways may have loaded beside these, and with the record of the one to serve after
    /// a restart; nil refuses that.
    public var checkpointsDirectory: String?

    /// The address to listen on.
    public var host = "127.0.0.1"

    /// The port to listen on; 0 lets the system choose.
    public var port = 7401

    /// The port, bound before the weights are loaded so that a port that cannot be had is known at once; nil binds it
    /// when the service begins to listen.
    public var reservation: PortReservation?

    /// Whether gateways' connections are encrypted.
    public var security = ServerSecurity.plaintext

    /// Overrides for keys of the model's `config.json`.
    public var modelOverrides: [String: String] = [:]

    /// How weights are kept in memory; packed shards are used from their mapped files and keep their own type.
    public var storage = ExpertHostSettings.table.dtype.defaultValue

    /// Whether packed shards are read once, and their checksums compared, before the host serves.
    public var prefault = false

    /// Threads that compute; one call uses all of them.
    public var threads = 1

    /// Whether each of them is pinned to its own processor.
    public var pinsThreads = false

    /// How long an idle one of them looks for work before it sleeps.
    public var spin = ExpertHostSettings.table.compute.spin.defaultValue

    /// `Forward` calls that may wait while another one is computed.
    public var queueLimit = ExpertHostSettings.table.queueLimit.defaultValue

    /// Token rows of all `Forward` calls that wait.
    public var queueRowLimit = 65_536

    /// Token rows that one `Forward` call may have.
    public var maxRowsPerCall = ExpertHostSettings.table.maxRows.defaultValue

    /// Most token rows for which waiting calls of the same layer are computed in one pass; 1 computes each call
    /// alone.
    public var batchRowLimit = ExpertHostSettings.table.batchRows.defaultValue

    /// How long a free host may wait for companions of a call from other connections; zero never waits.
    ///
    /// It waits only if another connection is expected to call for the same layer within this time and within half a
    /// pass, so never if there is only one connection.
    public var batchWindow = ExpertHostSettings.table.batchWindow.defaultValue

    /// Where the host runs, for gateways that prefer their own zone; nil if not set.
    public var zone: String?

    /// How long calls may take to finish once draining has begun.
    public var drainTimeout = ExpertHostSettings.table.drain.defaultValue

    /// Bytes of calls that have arrived in part; half of them may be one connection's.
    ///
    /// At least twice the largest call, whatever is set.
    public var receiveBudgetBytes = ExpertHostSettings.table.receiveBudget.defaultValue

    /// Whether clients may ask for the services and messages through gRPC server reflection.
    public var reflection = true

    /// Whether small calls are computed on the event loops that received them, where nothing waits beside them.
    package var computesOnEventLoops = true

    /// Notes when the stages of calls happen, for benchmarks.
    package var stages: CallStages?

    /// The most characters in a zone's name, the limit of a DNS label.
    static let longestZone = 63

    /// Creates the configuration of a host for one folder; everything else has its default.
    ///
    /// - Parameter shardDirectory: The folder with the experts.
    public init(shardDirectory: String) {
        self.init(shardDirectories: [shardDirectory])
    }

    /// Creates the configuration of a host for some folders; everything else has its default.
    ///
    /// - Parameter shardDirectories: The folders with the experts.
    public init(shardDirectories: [String]) {
        self.shardDirectories = shardDirectories
    }

    /// Checks every value against its limits.
    ///
    /// - Throws: ``ExpertHostError`` naming the first value that is outside its limits.
    public func validate() throws(ExpertHostError) {
        guard !self.shardDirectories.isEmpty, !self.shardDirectories.contains("") else {
            throw ExpertHostError(.configuration, "no shard folder is given; pass --shard DIR")
        }
        let table = ExpertHostSettings.table
        let problems = [
            table.compute.threads.problem(with: self.threads), table.queueLimit.problem(with: self.queueLimit),
            table.maxRows.problem(with: self.maxRowsPerCall), table.batchRows.problem(with: self.batchRowLimit),
            table.batchWindow.problem(with: self.batchWindow), table.drain.problem(with: self.drainTimeout),
            table.receiveBudget.problem(with: self.receiveBudgetBytes),
        ]
        if let problem = problems.lazy.compactMap({ $0 }).first { throw ExpertHostError(.configuration, problem) }
        try Self.check("port", self.port, within: 0...65_535)
        try Self.check("the limit of waiting rows", self.queueRowLimit, within: self.maxRowsPerCall...(1 << 30))
        if let zone = self.zone {
            try Self.check(zone: zone)
        }
    }

    /// The configuration with the folders of the checkpoint that is recorded as served, if one is.
    ///
    /// - Returns: The configuration, and the record that changed it.
    /// - Throws: `CheckpointError` where the folder, the record or a part is missing or malformed.
    func recorded() throws(CheckpointError) -> (Self, CheckpointFolder.Record?) {
        guard let path = self.checkpointsDirectory else { return (self, nil) }
        let folder = CheckpointFolder(path: path)
        try folder.check()
        guard let record = try folder.record(of: .experts) else { return (self, nil) }
        var configuration = self
        configuration.shardDirectories = try folder.parts(like: self.shardDirectories, of: record.checkpoint)
        return (configuration, record)
    }

    private static func check(zone: String) throws(ExpertHostError) {
        let isLegal = zone.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default:
                false
            }
        }
        guard isLegal, (1...Self.longestZone).contains(zone.utf8.count) else {
            throw ExpertHostError(
                .configuration,
                "the zone is \"\(zone.prefix(80))\" (\(zone.utf8.count) bytes); it must have 1 to \(Self.longestZone) of "
                    + "the characters A-Z, a-z, 0-9, '.', '_' and '-'"
            )
        }
    }

    private static func check(_ name: String, _ value: Int, within limits: ClosedRange<Int>) throws(ExpertHostError) {
        guard limits.contains(value) else {
            throw ExpertHostError(
                .configuration,
                "\(name) is \(value); it must be from \(limits.lowerBound) to \(limits.upperBound)"
            )
        }
    }
}

/// Why an expert host cannot start or continue.
public struct ExpertHostError: Error, Sendable, CustomStringConvertible {
    /// The kind of error.
    public enum Code: Sendable, Hashable {
        /// A value of the configuration is outside its limits.
        case configuration
        /// The folders hold no experts.
        case noExperts
        /// The folders come from different checkpoints.
        case mixedShards
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

    /// The error of folders that hold everything but experts.
    static func noExperts(in configuration: ExpertHostConfiguration) -> Self {
        Self(
            .noExperts,
            "no experts are in \(configuration.shardDirectories.joined(separator: ", ")); name a pool's folder, not the "
                + "gateway's"
        )
    }
}
