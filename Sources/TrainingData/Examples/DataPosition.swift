// SPDX-License-Identifier: Apache-2.0

/// How far a run has read its data: all that is needed to read on as if it had never stopped.
public struct DataPosition: Sendable, Hashable, Codable {
    /// The seed of the order and the masks.
    public var seed: UInt64

    /// Which pass over the data, from 0.
    public var epoch: Int

    /// The next place of the epoch's order.
    public var place: Int

    /// The next part of the line there; 0 except within a long line of plain text.
    public var part: Int

    /// Examples given so far, in all epochs.
    public var examples: Int

    /// Examples given before this epoch began.
    public var examplesBeforeEpoch: Int

    /// Lines that could not be used so far, in all epochs.
    public var faults: Int

    /// What the position is for: the lines' content and the settings.
    public var fingerprint: UInt64

    /// The beginning.
    ///
    /// - Parameters:
    ///   - seed: The seed of the order and the masks.
    ///   - fingerprint: What the position is for.
    init(seed: UInt64, fingerprint: UInt64) {
        self.seed = seed
        self.epoch = 0
        self.place = 0
        self.part = 0
        self.examples = 0
        self.examplesBeforeEpoch = 0
        self.faults = 0
        self.fingerprint = fingerprint
    }
}
