// SPDX-License-Identifier: Apache-2.0

/// Whether waiting for companions is worth while, from what it brought lately.
///
/// Gateways whose calls were computed together get their answers together, and so come together again at the next layer:
/// waiting pays always or hardly ever. After some waits that brought nobody only one pass in many waits, to find out
/// whether that has changed.
struct CompanionPatience: Sendable {
    /// Waits in a row that may bring nobody.
    static let attempts = 4

    /// Passes without a wait after that.
    static let pause = 32

    private var failures = 0
    private var passesToGo = 0

    /// Asks before a wait begins; a refusal counts as a pass without one.
    mutating func mayWait() -> Bool {
        if self.passesToGo > 0 {
            self.passesToGo -= 1
            return false
        }
        return true
    }

    /// A wait has ended.
    mutating func waited(broughtCompanions: Bool) {
        guard !broughtCompanions else {
            self.failures = 0
            return
        }
        self.failures = min(self.failures + 1, Self.attempts)
        if self.failures == Self.attempts {
            self.passesToGo = Self.pause
        }
    }
}
