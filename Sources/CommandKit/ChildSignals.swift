// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// The child processes that run, for signals to them.
///
/// A signal is sent under the lock, and a child is struck off under the lock once the system has taken its status, so that
/// none is sent to another process that got the same identifier.
package final class ChildSignals: Sendable {
    private let running = Mutex<Set<Int32>>([])

    /// Starts without a child.
    package init() {}

    /// A child runs.
    package func started(_ identifier: Int32) {
        self.running.withLock { _ = $0.insert(identifier) }
    }

    /// A child has ended.
    package func ended(_ identifier: Int32) {
        self.running.withLock { _ = $0.remove(identifier) }
    }

    /// Sends a signal to one child, unless it has ended.
    package func send(_ signal: Int32, to identifier: Int32) {
        self.running.withLock { running in
            if running.contains(identifier) { _ = kill(identifier, signal) }
        }
    }

    /// Sends a signal to all children: SIGTERM to those that stop already makes them end what is in flight.
    package func sendToAll(_ signal: Int32) {
        self.running.withLock { running in
            for identifier in running { _ = kill(identifier, signal) }
        }
    }
}
