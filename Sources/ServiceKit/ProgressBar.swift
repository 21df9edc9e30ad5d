// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// Progress of a long piece of work: one line redrawn in place on a terminal, a line every tenth elsewhere.
public final class ProgressBar: Sendable {
    private struct State {
        var label = ""
        var start = ContinuousClock.now
        var shownTenth = -1
        var lastDraw: ContinuousClock.Instant?
        var finished = false
    }

    private let isTerminal: Bool
    private let state = Mutex(State())

    /// Creates a bar; nothing is drawn before the first update.
    ///
    /// - Parameter isTerminal: Whether standard error is a terminal; found out when nil.
    public init(isTerminal: Bool? = nil) {
        self.isTerminal = isTerminal ?? (isatty(STDERR_FILENO) == 1)
    }

    /// Shows how far the work is; another label begins a new bar.
    ///
    /// - Parameters:
    ///   - label: What is in progress: `Writing pool-0`.
    ///   - completed: Bytes or things done.
    ///   - total: Bytes or things in all.
    ///   - isBytes: Whether bytes are counted.
    public func update(_ label: String, completed: Int, total: Int, isBytes: Bool) {
        let now = ContinuousClock.now
        let text: String? = self.state.withLock { state in
            if state.label != label { state = State(label: label, start: now) }
            guard !state.finished else { return nil }
            state.finished = completed >= total
            if self.isTerminal {
                if let last = state.lastDraw, !state.finished, last.duration(to: now) < .milliseconds(50) { return nil }
                state.lastDraw = now
                let line = Self.line(label, completed, total, isBytes, state.start.duration(to: now))
                return "\r\u{1B}[2K" + line + (state.finished ? "\n" : "")
            }
            let tenth = total > 0 ? completed * 10 / total : 10
            guard tenth > state.shownTenth else { return nil }
            state.shownTenth = tenth
            return Self.line(label, completed, total, isBytes, state.start.duration(to: now)) + "\n"
        }
        if let text { FileHandle.standardError.write(Data(text.utf8)) }
    }

    /// One state of a bar, as it is drawn.
    static func line(_ label: String, _ completed: Int, _ total: Int, _ isBytes: Bool, _ elapsed: Duration) -> String {
        let fraction = total > 0 ? min(1, Double(completed) / Double(total)) : 1
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        let filled = Int(fraction * 24)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 24 - filled)
        let percent = String(format: "%3d %%", Int(fraction * 100))
        let amount =
            isBytes ? "\(self.megabytes(completed)) / \(self.megabytes(total)) MB" : "\(completed) / \(total)"
        let rate = isBytes && seconds > 0.05 ? String(format: "%.0f MB/s", Double(completed) / 1e6 / seconds) : ""
        let left =
            fraction > 0.02 && fraction < 1 ? String(format: "%.0f s left", seconds / fraction * (1 - fraction)) : ""
        return [label, bar, percent, amount, rate, left].filter { !$0.isEmpty }.joined(separator: "  ")
    }

    private static func megabytes(_ bytes: Int) -> String {
        String(format: "%.1f", Double(bytes) / 1e6)
    }
}
