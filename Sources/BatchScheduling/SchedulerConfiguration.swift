// SPDX-License-Identifier: Apache-2.0

/// The bounds that a scheduler enforces.
public struct SchedulerConfiguration: Sendable, Equatable {
    /// Decoder rows that may run at once; a sequence takes one for each beam or returned sequence.
    public var batchSlots: Int
    /// Sequences that may wait; one more is rejected.
    public var queueLimit: Int
    /// Input tokens that one step may encode; a single longer input is encoded alone.
    public var encodeTokensPerStep: Int
    /// The largest share of the batch slots that one caller may hold while others wait.
    ///
    /// A caller's only running sequence may be wider.
    public var callerShare = 0.75
    /// Decoder rows beside the batch slots, for callers that hold none while none is free for them.
    public var guestSlots = 4
    /// The shortest and the longest time after which a rejected client is told to try again.
    public var retryHintBounds: ClosedRange<Duration> = .milliseconds(50) ... .seconds(30)

    /// Batch slots that one caller may hold while others wait, at least 1.
    var callerSlots: Int { max(1, Int(Double(self.batchSlots) * min(max(self.callerShare, 0), 1))) }

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - batchSlots: Decoder rows that may run at once, at least 1.
    ///   - queueLimit: Sequences that may wait, at least 1.
    ///   - encodeTokensPerStep: Input tokens that one step may encode, at least 1.
    public init(batchSlots: Int = 32, queueLimit: Int = 64, encodeTokensPerStep: Int = 2048) {
        precondition(batchSlots >= 1 && queueLimit >= 1 && encodeTokensPerStep >= 1, "scheduler bounds start at 1")
        self.batchSlots = batchSlots
        self.queueLimit = queueLimit
        self.encodeTokensPerStep = encodeTokensPerStep
    }
}
