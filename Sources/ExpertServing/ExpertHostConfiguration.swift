// SPDX-License-Identifier: Apache-2.0

public import RPCTransport
public import SwitchModel

/// What an expert host is told when it starts.
public struct ExpertHostConfiguration: Sendable {
    /// The folder with the experts: a shard that `switchyard shard` wrote, or a whole checkpoint.
    public var shardDirectory: String

    /// The address to listen on.
    public var host = "127.0.0.1"

    /// The port to listen on; 0 lets the system choose.
    public var port = 7401

    /// Whether gateways' connections are encrypted.
    public var security = ServerSecurity.plaintext

    /// Keys of the model's `config.json` and the values that replace those in the file.
    public var modelOverrides: [String: String] = [:]

    /// How weights are kept in memory.
    public var storage = WeightStorage.checkpoint

    /// Threads that compute; one call uses all of them.
    public var threads = 1

    /// `Forward` calls that may wait while another one is computed.
    public var queueLimit = 256

    /// Token rows of all `Forward` calls that wait.
    public var queueRowLimit = 65_536

    /// Token rows that one `Forward` call may have.
    public var maxRowsPerCall = 16_384

    /// How long calls may take to finish once draining has begun.
    public var drainTimeout = Duration.seconds(20)

    /// Whether clients may ask for the services and messages by gRPC server reflection.
    public var reflection = true

    /// Creates the configuration of a host for one folder; everything else has its default.
    ///
    /// - Parameter shardDirectory: The folder with the experts.
    public init(shardDirectory: String) {
        self.shardDirectory = shardDirectory
    }

    /// Checks every value against its limits.
    ///
    /// - Throws: ``ExpertHostError`` naming the first value that is out of its limits.
    public func validate() throws(ExpertHostError) {
        guard !self.shardDirectory.isEmpty else {
            throw ExpertHostError(.configuration, "the shard's folder is not given; pass --shard DIR")
        }
        try Self.check("port", self.port, within: 0...65_535)
        try Self.check("threads", self.threads, within: 1...1_024)
        try Self.check("queue limit", self.queueLimit, within: 1...65_536)
        try Self.check("rows a call", self.maxRowsPerCall, within: 1...1_048_576)
        try Self.check("rows that wait", self.queueRowLimit, within: self.maxRowsPerCall...(1 << 30))
        guard self.drainTimeout >= .zero else {
            throw ExpertHostError(.configuration, "the drain timeout is \(self.drainTimeout); it cannot be negative")
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

/// Why an expert host cannot start or go on.
public struct ExpertHostError: Error, Sendable, CustomStringConvertible {
    /// What kind of trouble it is.
    public enum Code: Sendable, Hashable {
        /// A value of the configuration is out of its limits.
        case configuration
        /// The folder holds no experts.
        case noExperts
    }

    /// What kind of trouble it is.
    public var code: Code

    /// What is wrong and what to do about it.
    public var message: String

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: What kind of trouble it is.
    ///   - message: What is wrong and what to do about it.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The message.
    public var description: String { self.message }
}
