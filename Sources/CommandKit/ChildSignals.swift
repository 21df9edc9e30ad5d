// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// The running child processes, for sending signals.
///
/// A signal is sent under the lock, and a child is removed under the lock once its status is collected, so that no
/// signal reaches another process that got the same identifier.
package final class ChildSignals: Sendable {
    private let running = Mutex<Set<Int32>>([])

    /// Starts without a child.
    package init() {}

    /// Adds a running child.
    package func started(_ identifier: Int32) {
        self.running.withLock { _ = $0.insert(identifier) }
    }

    /// Removes a child that has ended.
    package func ended(_ identifier: Int32) {
        self.running.withLock { _ = $0.remove(identifier) }
    }

    /// Sends a signal to one child, unless it has ended.
    package func send(_ signal: Int32, to identifier: Int32) {
        self.running.withLock { running in
            if running.contains(identifier) { _ = kill(identifier, signal) }
        }
    }

    /// Sends a signal to all children: SIGTERM to children that are already stopping makes them cut off requests in
    /// flight.
    package func sendToAll(_ signal: Int32) {
        self.running.withLock { running in
            for identifier in running { _ = kill(identifier, signal) }
        }
    }
}
