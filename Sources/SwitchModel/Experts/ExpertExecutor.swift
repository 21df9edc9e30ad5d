// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The interface between the model and its experts, wherever they are.
public protocol ExpertExecutor: Sendable {
    /// Starts a layer's expert work. Returns soon: the work goes on elsewhere, or in `wait`.
    ///
    /// - Parameter request: The layer's work.
    /// - Returns: A handle for the outputs, to be waited for or cancelled.
    func begin(_ request: ExpertLayerRequest) -> any PendingExperts
}

/// Expert work that has begun.
public protocol PendingExperts: Sendable {
    /// Blocks the calling thread until every row is answered or dropped. Call it at most once.
    ///
    /// - Returns: The outputs.
    /// - Throws: `StepInterrupted` when the step must not go on.
    func wait() throws -> ExpertOutputs

    /// Whether ``wait()`` would return without waiting for others; does any due work on the way.
    ///
    /// Call it on the thread that will wait; once true, it stays true.
    var isReady: Bool { get }

    /// Cancels: the outputs are no longer needed.
    func cancel()
}

extension PendingExperts {
    /// Work that the waiting thread does itself is always ready.
    public var isReady: Bool { true }
}

extension ExpertExecutor {
    /// Does a layer's expert work and waits for it.
    ///
    /// - Parameter request: The layer's work.
    /// - Returns: The outputs.
    /// - Throws: `StepInterrupted` when the step must not go on.
    public func execute(_ request: ExpertLayerRequest) throws -> ExpertOutputs {
        try self.begin(request).wait()
    }
}

/// An executor's refusal to continue a step because it would have to drop tokens that must not be dropped.
public struct StepInterrupted: Error, Sendable, Hashable, CustomStringConvertible {
    /// The layer whose outputs are missing.
    public var layer: SparseLayer

    /// Why they are missing.
    public var reason: DropReason

    /// The sequences, by their index in the call's inputs, that must not lose tokens.
    public var sequences: [Int]

    /// What happened, for people.
    public var message: String

    /// Describes a refusal.
    ///
    /// - Parameters:
    ///   - layer: The layer whose outputs are missing.
    ///   - reason: Why they are missing.
    ///   - sequences: The sequences that must not lose tokens.
    ///   - message: What happened, for people.
    public init(layer: SparseLayer, reason: DropReason, sequences: [Int], message: String) {
        self.layer = layer
        self.reason = reason
        self.sequences = sequences
        self.message = message
    }

    /// The layer, the reason and the message in one line.
    public var description: String {
        "\(self.layer.stack) block \(self.layer.block): \(self.message) (\(self.reason))"
    }
}
