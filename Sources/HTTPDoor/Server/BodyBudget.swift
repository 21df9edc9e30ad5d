// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// The bytes that the bodies of all requests take together, from their arrival to the end of their requests.
final class BodyBudget: Sendable {
    private let limit: Int
    private let used = Mutex(0)

    init(limit: Int) { self.limit = limit }

    /// Bytes in use.
    var bytes: Int { self.used.withLock { $0 } }

    /// Takes bytes.
    ///
    /// - Returns: Whether there was room for them.
    func take(_ count: Int) -> Bool {
        self.used.withLock { used in
            let (sum, overflow) = used.addingReportingOverflow(count)
            guard !overflow, sum <= self.limit else { return false }
            used = sum
            return true
        }
    }

    /// Gives bytes back.
    func give(_ count: Int) { self.used.withLock { $0 -= count } }
}
