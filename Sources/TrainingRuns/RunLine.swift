// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The live line of a run, and its experts' balance as small bars.
public enum RunLine {
    private static let bars = Array("▁▂▃▄▅▆▇█")

    /// Shares as bars: a full bar is twice an even share or more.
    ///
    /// - Parameters:
    ///   - shares: The share of each expert.
    ///   - columns: Columns at most; neighbours share a bar, which shows the largest of them.
    /// - Returns: One character for each expert or group of them; a dot for an expert without a token.
    public static func bars(_ shares: [Double], columns: Int = 64) -> String {
        guard !shares.isEmpty else { return "" }
        let width = (shares.count + max(1, columns) - 1) / max(1, columns)
        return stride(from: 0, to: shares.count, by: width)
            .map { start in
                let share = shares[start..<min(start + width, shares.count)].max() ?? 0
                guard share > 0, share.isFinite else { return "·" }
                let level = share * Double(shares.count) / 2 * Double(Self.bars.count)
                return String(Self.bars[min(Self.bars.count - 1, max(0, Int(level)))])
            }
            .joined()
    }

    /// A run's line: `step 200/1000  loss 2.1374  balance 1.02  dropped 1.3 %  5210 tokens/s  2 min left`.
    ///
    /// - Parameters:
    ///   - report: The last report.
    ///   - steps: Steps of the whole run; nil where time ends it.
    ///   - secondsLeft: Seconds until its end; nil where they are unknown.
    /// - Returns: The line.
    public static func text(_ report: RunReport, of steps: Int?, secondsLeft: Double?) -> String {
        var parts = ["step \(report.step)" + (steps.map { "/\($0)" } ?? "")]
        parts.append(String(format: "loss %.4f", report.loss))
        if let divergence = report.divergence { parts.append(String(format: "divergence %.4f", divergence)) }
        if let balance = report.balance { parts.append(String(format: "balance %.3f", balance)) }
        if let dropped = report.dropped { parts.append(String(format: "dropped %.1f %%", dropped * 100)) }
        if let rate = report.tokensPerSecond { parts.append(String(format: "%.0f tokens/s", rate)) }
        if let secondsLeft { parts.append("\(Self.time(secondsLeft)) left") }
        return parts.joined(separator: "  ")
    }

    /// An evaluation's line: `evaluation after step 200: cross-entropy 2.0513, perplexity 7.78, token accuracy 61.2 %`.
    ///
    /// - Parameter report: The evaluation.
    /// - Returns: The line.
    public static func evaluation(_ report: RunReport) -> String {
        var parts = [
            String(format: "cross-entropy %.4f", report.crossEntropy),
            String(format: "perplexity %.2f", exp(report.crossEntropy)),
        ]
        if let accuracy = report.accuracy { parts.append(String(format: "token accuracy %.1f %%", accuracy * 100)) }
        if let dropped = report.dropped { parts.append(String(format: "dropped %.1f %%", dropped * 100)) }
        return "evaluation after step \(report.step): " + parts.joined(separator: ", ")
    }

    /// Each sparse layer's balance in a line: its name, bars, the largest share, the dropped share.
    ///
    /// - Parameters:
    ///   - layers: The layers.
    ///   - columns: Columns of the bars at most.
    /// - Returns: A line for each layer.
    public static func balance(_ layers: [RunReport.Balance], columns: Int = 64) -> [String] {
        let width = layers.map(\.layer.count).max() ?? 0
        return layers.map { layer in
            layer.layer.padding(toLength: width, withPad: " ", startingAt: 0) + "  "
                + Self.bars(layer.shares, columns: columns)
                + String(format: "  most %.2f x even, dropped %.1f %%", layer.peak, layer.dropped * 100)
        }
    }

    /// A time for people: `45 s`, `12 min`, `3 h 05 min`.
    ///
    /// - Parameter seconds: The time.
    /// - Returns: The text.
    public static func time(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 1e9 else { return "unknown" }
        let whole = Int(max(0, seconds).rounded())
        switch whole {
        case ..<90: return "\(whole) s"
        case ..<5400: return "\((whole + 30) / 60) min"
        default: return "\(whole / 3600) h \(String(format: "%02d", whole % 3600 / 60)) min"
        }
    }
}
