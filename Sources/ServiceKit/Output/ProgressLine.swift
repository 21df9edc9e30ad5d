// SPDX-License-Identifier: Apache-2.0

import Foundation

/// What a progress bar shows and when, without writing it: time is a parameter.
///
/// On a terminal one line is redrawn in place, at most twenty times a second; another label starts a new bar.
/// Elsewhere there is a line every few seconds, and none for short work, so that a log stays short.
struct ProgressLine {
    /// How often the line of a terminal is redrawn.
    static let redrawInterval = Duration.milliseconds(50)
    private static let barWidth = 24

    private struct Bar {
        var label: String
        var start: ContinuousClock.Instant
        var lastDraw: ContinuousClock.Instant?
        var isFinished = false
    }

    let isTerminal: Bool
    /// Columns that a line may take on a terminal.
    let columns: Int

    private var bar: Bar?
    /// When lines that are not redrawn are due; all bars share it.
    private var pace: ProgressPace?

    init(isTerminal: Bool, columns: Int) {
        self.isTerminal = isTerminal
        self.columns = columns
    }

    /// Updates the progress.
    ///
    /// - Parameters:
    ///   - label: What is in progress.
    ///   - completed: Bytes or things done.
    ///   - total: Bytes or things in total.
    ///   - isBytes: Whether bytes are counted.
    ///   - now: The current time.
    /// - Returns: Text to write, or nil if nothing new is shown.
    mutating func updated(
        _ label: String,
        completed: Int,
        total: Int,
        isBytes: Bool,
        now: ContinuousClock.Instant
    ) -> String? {
        var bar = self.bar ?? Bar(label: label, start: now)
        var before = ""
        if bar.label != label {
            // An unfinished bar keeps its line.
            if self.isTerminal, !bar.isFinished { before = "\n" }
            bar = Bar(label: label, start: now)
        }
        defer { self.bar = bar }
        guard !bar.isFinished else { return nil }
        bar.isFinished = completed >= total
        let fraction = total > 0 ? min(1, max(0, Double(completed) / Double(total))) : 1
        let line = self.line(bar, fraction, completed, total, isBytes, now)
        guard self.isTerminal else {
            var pace = self.pace ?? ProgressPace(now: now)
            defer { self.pace = pace }
            return pace.isDue(isFinished: bar.isFinished, now: now) ? line + "\n" : nil
        }
        if let last = bar.lastDraw, !bar.isFinished, last.duration(to: now) < Self.redrawInterval { return nil }
        bar.lastDraw = now
        // One column stays free: a full line makes some terminals wrap.
        return before + "\r\u{1B}[2K" + line.prefix(max(1, self.columns - 1)) + (bar.isFinished ? "\n" : "")
    }

    private func line(
        _ bar: Bar,
        _ fraction: Double,
        _ completed: Int,
        _ total: Int,
        _ isBytes: Bool,
        _ now: ContinuousClock.Instant
    ) -> String {
        let time = bar.start.duration(to: now).components
        let seconds = Double(time.seconds) + Double(time.attoseconds) * 1e-18
        let percent = String(format: "%3d %%", Int(fraction * 100))
        let amount =
            isBytes ? "\(Self.megabytes(completed)) / \(Self.megabytes(total)) MB" : "\(completed) / \(total)"
        let isRateKnown = isBytes && seconds > 0.05
        let rate = isRateKnown ? String(format: "%.0f MB/s", Double(completed) / 1e6 / seconds) : ""
        let isUnderWay = fraction > 0.02 && fraction < 1
        let left = isUnderWay ? String(format: "%.0f s left", seconds / fraction * (1 - fraction)) : ""
        let parts = [bar.label, self.isTerminal ? Self.bar(fraction) : "", percent, amount, rate, left]
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
