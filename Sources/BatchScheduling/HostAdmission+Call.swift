// SPDX-License-Identifier: Apache-2.0

extension HostAdmission.Call {
    /// What it takes of the compute thread, in rows of a `Forward`.
    ///
    /// Reading an expert's weights costs about as much as computing four rows, and gradients take half as many products
    /// again, with weights that are unpacked.
    var cost: Int { (self.kind == .gradients ? 2 : 1) * (self.rows + 4 * self.experts) }

    /// Whether the two can be computed in one pass.
    func fits(_ other: Self) -> Bool {
        self.layer == other.layer && self.kind == other.kind && self.checkpoint == other.checkpoint
    }

    /// Whether a trainer waits for it.
    var isTraining: Bool { self.kind != .serving }

    /// Whether the caller no longer waits for the answer.
    func isExpired(_ now: ContinuousClock.Instant) -> Bool { self.deadline.map { $0 <= now } ?? false }
}
