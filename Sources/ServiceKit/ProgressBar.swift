// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Progress of a long piece of work on standard error: one line redrawn in place on a terminal, a line every tenth
/// elsewhere.
public final class ProgressBar: Sendable {
    private let line: Mutex<ProgressLine>

    /// Creates a bar; nothing is drawn before the first update.
    ///
    /// - Parameters:
    ///   - label: What is in progress: `sharding`, `loading pool-0`.
    ///   - isTerminal: Whether standard error is a terminal; found out when nil.
    public init(_ label: String, isTerminal: Bool? = nil) {
        self.line = Mutex(
            ProgressLine(
                label: label,
                isTerminal: isTerminal ?? StandardError.isTerminal,
                columns: StandardError.columns ?? 80,
                start: .now
            )
        )
    }

    /// Shows how far the work is; may be called from any thread, as often as is convenient.
    ///
    /// - Parameters:
    ///   - completed: Bytes done.
    ///   - total: Bytes in all.
    public func update(completed: Int, total: Int) {
        // Written under the lock, so that lines of several threads keep their order.
        self.line.withLock { line in
            if let text = line.updated(completed: completed, total: total, now: .now) { StandardError.write(text) }
        }
    }
}
