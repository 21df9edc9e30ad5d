// SPDX-License-Identifier: Apache-2.0

import Foundation

/// What a progress bar shows and when, without writing it: time is a parameter.
///
/// On a terminal one line is redrawn in place, at most twenty times a second. Elsewhere each tenth of the work is a line
/// of its own, so that a log stays short.
struct ProgressLine {
    /// How often the line of a terminal is redrawn.
    static let redrawInterval = Duration.milliseconds(50)
    private static let barWidth = 24

    let label: String
    let isTerminal: Bool
    /// Columns that a line may take on a terminal.
    let columns: Int
    let start: ContinuousClock.Instant

    private var shownTenth = -1
    private var lastDraw: ContinuousClock.Instant?
    private var isFinished = false

    init(label: String, isTerminal: Bool, columns: Int, start: ContinuousClock.Instant) {
        self.label = label
        self.isTerminal = isTerminal
        self.columns = columns
        self.start = start
    }

    /// The work has come this far.
    ///
    /// - Parameters:
    ///   - completed: Bytes done.
    ///   - total: Bytes in all.
    ///   - now: The present.
    /// - Returns: Text to write, or nil where nothing new is shown.
    mutating func updated(completed: Int, total: Int, now: ContinuousClock.Instant) -> String? {
        guard !self.isFinished else { return nil }
        let fraction = total > 0 ? min(1, max(0, Double(completed) / Double(total))) : 1
        self.isFinished = completed >= total
        if self.isTerminal {
            if let last = self.lastDraw, !self.isFinished, last.duration(to: now) < Self.redrawInterval { return nil }
            self.lastDraw = now
            // One column stays free: a full line makes some terminals wrap.
            let line = self.line(fraction, completed, total, now).prefix(max(1, self.columns - 1))
            return "\r\u{1B}[2K" + line + (self.isFinished ? "\n" : "")
        }
        let tenth = Int(fraction * 10)
        guard tenth > self.shownTenth else { return nil }
        self.shownTenth = tenth
        return self.line(fraction, completed, total, now) + "\n"
    }

    private func line(_ fraction: Double, _ completed: Int, _ total: Int, _ now: ContinuousClock.Instant) -> String {
        let time = self.start.duration(to: now).components
        let seconds = Double(time.seconds) + Double(time.attoseconds) * 1e-18
        let percent = String(format: "%3d %%", Int(fraction * 100))
        let sizes = "\(Self.megabytes(completed)) / \(Self.megabytes(total)) MB"
        let rate = seconds > 0.05 ? String(format: "%.0f MB/s", Double(completed) / 1e6 / seconds) : ""
        let isUnderWay = fraction > 0.02 && fraction < 1
        let left = isUnderWay ? String(format: "%.0f s left", seconds / fraction * (1 - fraction)) : ""
        let parts = [self.label, self.isTerminal ? Self.bar(fraction) : "", percent, sizes, rate, left]
        return parts.filter { !$0.isEmpty }.joined(separator: "  ")
    }

    private static func bar(_ fraction: Double) -> String {
        let filled = Int(fraction * Double(Self.barWidth))
        return String(repeating: "█", count: filled) + String(repeating: "░", count: Self.barWidth - filled)
    }

    private static func megabytes(_ bytes: Int) -> String {
        String(format: "%.1f", Double(bytes) / 1e6)
    }
}
