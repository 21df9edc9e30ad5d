// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Which received messages were compressed, in order.
///
/// Only for interoperability tests, whose peer says what to expect: nothing else needs it, and the log of a call whose
/// handler does not read it would grow with its messages.
package final class CompressionLog: Sendable {
    private let flags = Mutex<[Bool]>([])

    /// Creates an empty log.
    package init() {}

    /// Removes and returns whether the next message was compressed.
    ///
    /// - Returns: Nothing where no message has come since.
    package func next() -> Bool? {
        self.flags.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    }

    func add(_ isCompressed: Bool) {
        self.flags.withLock { $0.append(isCompressed) }
    }
}
