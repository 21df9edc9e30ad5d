// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Which of the messages that were received came compressed, in their order.
///
/// For tests of interoperability alone, where a peer says what it must be: nobody else needs to know, and the log of a call
/// whose handler does not read it would grow with its messages.
package final class CompressionLog: Sendable {
    private let flags = Mutex<[Bool]>([])

    /// Creates an empty log.
    package init() {}

    /// Says whether the next message came compressed, and forgets it.
    ///
    /// - Returns: Nothing where no message has come since.
    package func next() -> Bool? {
        self.flags.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    }

    func add(_ isCompressed: Bool) {
        self.flags.withLock { $0.append(isCompressed) }
    }
}
