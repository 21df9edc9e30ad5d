// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// Progress of a long piece of work: one line redrawn in place on a terminal, a line every tenth elsewhere.
public final class ProgressBar: Sendable {
    private struct State {
        var shownTenth = -1
        var lastDraw: ContinuousClock.Instant?
        var finished = false
    }

    private let label: String
    private let isTerminal: Bool
    private let start = ContinuousClock.now
    private let state = Mutex(State())

    /// Creates a bar; nothing is drawn before the first update.
    ///
    /// - Parameters:
    ///   - label: What is in progress: `sharding`, `loading pool-0`.
    ///   - isTerminal: Whether standard error is a terminal; found out when nil.
    public init(_ label: String, isTerminal: Bool? = nil) {
        self.label = label
        self.isTerminal = isTerminal ?? (isatty(STDERR_FILENO) == 1)
    }

    /// Shows how far the work is.
    ///
    /// - Parameters:
    ///   - completed: Bytes done.
    ///   - total: Bytes in all.
    public func update(completed: Int, total: Int) {
        let fraction = total > 0 ? min(1, Double(completed) / Double(total)) : 1
        let now = ContinuousClock.now
        let text: String? = self.state.withLock { state in
            guard !state.finished else { return nil }
            if completed >= total { state.finished = true }
            if self.isTerminal {
                if let last = state.lastDraw, !state.finished, last.duration(to: now) < .milliseconds(50) { return nil }
                state.lastDraw = now
                return "\r\u{1B}[2K" + self.line(fraction, completed, total, now) + (state.finished ? "\n" : "")
            }
            let tenth = Int(fraction * 10)
            guard tenth > state.shownTenth else { return nil }
            state.shownTenth = tenth
            return self.line(fraction, completed, total, now) + "\n"
        }
        if let text { FileHandle.standardError.write(Data(text.utf8)) }
    }

    private func line(_ fraction: Double, _ completed: Int, _ total: Int, _ now: ContinuousClock.Instant) -> String {
        let elapsed = self.start.duration(to: now)
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        let filled = Int(fraction * 24)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 24 - filled)
        let percent = String(format: "%3d %%", Int(fraction * 100))
        let sizes = "\(Self.megabytes(completed)) / \(Self.megabytes(total)) MB"
        let rate = seconds > 0.05 ? String(format: "%.0f MB/s", Double(completed) / 1e6 / seconds) : ""
        let left =
            fraction > 0.02 && fraction < 1 ? String(format: "%.0f s left", seconds / fraction * (1 - fraction)) : ""
        return [self.label, bar, percent, sizes, rate, left].filter { !$0.isEmpty }.joined(separator: "  ")
    }

    private static func megabytes(_ bytes: Int) -> String {
        String(format: "%.1f", Double(bytes) / 1e6)
    }
}
