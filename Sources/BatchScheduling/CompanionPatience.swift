// SPDX-License-Identifier: Apache-2.0

/// Whether waiting for companions is worthwhile, judged by recent waits.
///
/// Gateways whose calls were computed together get their answers together, and so meet again at the next layer:
/// waiting pays off either always or hardly ever. After some fruitless waits only one pass in many waits, to find out
/// whether that has changed.
struct CompanionPatience: Sendable {
    /// Fruitless waits allowed in a row.
    static let attempts = 4

    /// Passes without a wait after those.
    static let pause = 32

    private var failures = 0
    private var passesToGo = 0

    /// Asks whether to start a wait; a refusal counts as a pass without one.
    mutating func mayWait() -> Bool {
        if self.passesToGo > 0 {
            self.passesToGo -= 1
            return false
        }
        return true
    }

    /// Records the end of a wait.
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
