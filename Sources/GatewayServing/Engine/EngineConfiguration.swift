// SPDX-License-Identifier: Apache-2.0

public import BatchScheduling
internal import Checkpoints
internal import ServiceKit
public import SwitchModel
public import SwitchyardTypes

/// How the engine schedules and computes.
public struct EngineConfiguration: Sendable {
    /// Batch slots, queue and encode budget.
    public var scheduler = SchedulerConfiguration(
        batchSlots: GatewaySettings.table.batchSlots.defaultValue,
        queueLimit: GatewaySettings.table.queueLimit.defaultValue,
        encodeTokensPerStep: GatewaySettings.table.encodeTokens.defaultValue
    )

    /// How many tokens an expert takes.
    public var capacityPolicy = GatewaySettings.table.capacity.defaultValue

    /// By how much encoding new sequences may lengthen a step while others decode; a step always encodes one block of
    /// one sequence.
    public var encodeTimePerStep = GatewaySettings.table.encodeTimePerStep.defaultValue

    /// Whether decoder steps run as two micro-batches that take turns.
    public enum Overlap: String, Sendable, Hashable, CaseIterable {
        /// Where measurements show that it is faster.
        case automatic = "auto"
        /// In every step of two rows or more.
        case always = "on"
        /// In no step.
        case never = "off"
    }

    /// Whether decoder steps run as two micro-batches that take turns.
    public var overlap = GatewaySettings.table.overlap.defaultValue

    /// The model's name in lines about traced requests; they name none if it is empty.
    public var modelName = ""

    /// Creates the default configuration.
    public init() {}
}

/// What the engine is doing.
public struct EngineLoad: Sendable, Hashable {
    /// Requests that wait for a batch slot.
    public var queued = 0
    /// Requests that may wait.
    public var queueLimit = 0
    /// Requests that run.
    public var running = 0
    /// Batch slots in use, and rows beside them that belong to guests.
    public var usedSlots = 0
    /// Batch slots in total.
    public var batchSlots = 0
    /// Whether new requests are turned away because the engine is draining.
    public var isDraining = false
    /// Steps since the start.
    public var steps: UInt64 = 0
    /// Decoder rows times steps since the start.
    public var decodedTokens: UInt64 = 0
    /// Tokens times sparse layers since the start.
    public var routedTokens: UInt64 = 0
    /// Tokens without an expert's output since the start.
    public var dropped: [DroppedTokens] = []
    /// Token rows that were dispatched since the start, for each sparse layer by expert index.
    public var expertRows: [SparseLayer: [UInt64]] = [:]
}
