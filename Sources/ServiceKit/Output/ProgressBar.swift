// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Progress of long work on standard error: one line redrawn in place on a terminal, a line every few seconds
/// elsewhere.
public final class ProgressBar: Sendable {
    private let line: Mutex<ProgressLine>

    /// Creates a bar; nothing is drawn before the first update.
    ///
    /// - Parameter isTerminal: Whether standard error is a terminal; detected when nil.
    public init(isTerminal: Bool? = nil) {
        self.line = Mutex(
            ProgressLine(
                isTerminal: isTerminal ?? StandardStream.error.isTerminal,
                columns: StandardStream.error.columns ?? 80
            )
        )
    }

    /// Shows how far the work is; another label starts a new bar.
    ///
    /// May be called on any thread, as often as convenient.
    ///
    /// - Parameters:
    ///   - label: What is in progress: `Writing pool-0`.
    ///   - completed: Bytes or things done.
    ///   - total: Bytes or things in total.
    ///   - isBytes: Whether bytes are counted.
    public func update(_ label: String, completed: Int, total: Int, isBytes: Bool) {
        // Written under the lock, so that lines of several threads keep their order.
        self.line.withLock { line in
            let text = line.updated(label, completed: completed, total: total, isBytes: isBytes, now: .now)
            // Work does not wait for a terminal that was stopped.
            if let text { StandardStream.error.writeIfReady(text) }
        }
    }
}
