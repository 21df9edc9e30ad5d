// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardTypes

/// Which experts took the tokens of each sparse layer, drawn for a terminal.
///
/// Numbers are exact. If a column for each expert does not fit into a line, each layer gets a one-line summary
/// instead.
struct RoutingPicture {
    /// One sparse layer: its name and how many token rows each expert took.
    struct Layer {
        /// `encoder 1`, `decoder 3`.
        var name: String
        /// Token rows by expert index.
        var rows: [UInt64]
        /// Tokens that the layer dropped, for any reason.
        var dropped: UInt64
    }

    /// Layers from the input to the output.
    var layers: [Layer]
    /// Name of the pool that holds each expert, by expert index.
    var pools: [String]
    /// Whether colours may be used.
    var usesColour: Bool
    /// How many columns a line may take.
    var columns: Int
    /// Whether every expert is shown, in several blocks of columns where one line is too short.
    var showsAllExperts = false

    /// The picture: a row per layer, a column per expert, darker where more tokens went; or a summary per layer.
    var text: String {
        let experts = self.expertCount
        guard experts > 0 else { return "no token has been routed yet" }
        let perBlock = self.expertsPerBlock
        if experts <= perBlock { return self.block(0..<experts) }
        guard self.showsAllExperts else { return self.summary }
        return stride(from: 0, to: experts, by: perBlock)
            .map { self.block($0..<min($0 + perBlock, experts)) }.joined(separator: "\n\n")
    }

    // MARK: - A column per expert

    private var expertCount: Int { self.layers.map(\.rows.count).max() ?? 0 }

    /// One column for the shade and one for each digit of the largest number.
    private var cellWidth: Int {
        let most = self.layers.flatMap(\.rows).max() ?? 0
        return max(6, 1 + max("\(most)".count, "\(self.expertCount - 1)".count))
    }

    private var labelWidth: Int { max(12, (self.layers.map(\.name.count).max() ?? 0) + 2) }

    private var droppedWidth: Int { max("dropped".count, "\(self.layers.map(\.dropped).max() ?? 0)".count) + 2 }

    private var expertsPerBlock: Int {
        max(1, (self.columns - self.labelWidth - self.droppedWidth) / self.cellWidth)
    }

    private func block(_ experts: Range<Int>) -> String {
        let width = self.cellWidth
        let label = self.labelWidth
        var lines = [Self.filled("", label) + self.poolHeader(experts)]
        lines.append(
            Self.filled("expert", label) + experts.map { Self.right("\($0)", width) }.joined()
                + Self.right("dropped", self.droppedWidth)
        )
        for layer in self.layers {
            let most = max(layer.rows.max() ?? 0, 1)
            let cells = experts.map { expert in
                let rows = expert < layer.rows.count ? layer.rows[expert] : 0
                return self.shade(Double(rows) / Double(most), text: Self.right("\(rows)", width))
            }
            lines.append(
                Self.filled(layer.name, label) + cells.joined() + Self.right("\(layer.dropped)", self.droppedWidth)
            )
        }
        return lines.map(Self.trimmed).joined(separator: "\n")
    }

    private func poolHeader(_ experts: Range<Int>) -> String {
        func pool(_ expert: Int) -> String { expert < self.pools.count ? self.pools[expert] : "?" }
        var text = ""
        var expert = experts.lowerBound
        while expert < experts.upperBound {
            var end = expert + 1
            while end < experts.upperBound, pool(end) == pool(expert) { end += 1 }
            // One column stays free to separate names.
            text +=
                " "
                + Self.filled(
                    Self.clipped(pool(expert), self.cellWidth * (end - expert) - 1),
                    self.cellWidth * (end - expert) - 1
                )
            expert = end
        }
        return text
    }

    /// A cell on a background between dark and bright; without colours, a bar of one to eight eighths comes first.
    private func shade(_ fraction: Double, text: String) -> String {
        guard self.usesColour else {
            let bars = Array(" ▁▂▃▄▅▆▇█")
            let index = fraction <= 0 ? 0 : max(1, Int((fraction * 8).rounded()))
            return String(bars[index]) + text.dropFirst()
        }
        // Colours 232 to 255 of the 256-colour palette are greys; the warm ramp reads better on dark and light.
        let ramp = [236, 58, 94, 130, 136, 172, 178, 214, 220]
        let index = fraction <= 0 ? 0 : max(1, Int((fraction * Double(ramp.count - 1)).rounded()))
        let foreground = index > 4 ? "30" : "97"
        return "\u{1B}[48;5;\(ramp[index])m\u{1B}[\(foreground)m\(text)\u{1B}[0m"
    }

    // MARK: - A line per layer

    private var summary: String {
        var table = TextTable([
            ("layer", .left), ("rows", .right), ("least", .right), ("median", .right), ("most", .right),
            ("idle", .right), ("dropped", .right), ("hottest expert: rows", .left),
        ])
        for layer in self.layers {
            let load = LoadSummary(layer.rows)
            table.add([
                layer.name, "\(load.total)", "\(load.least)", "\(load.median)", "\(load.most)", "\(load.idle)",
                "\(layer.dropped)", load.hottest.map { "\($0.expert): \($0.rows)" }.joined(separator: ", "),
            ])
        }
        let title = "rows that each of \(self.expertCount) experts took; --experts shows all"
        return title.wrapped(columns: self.columns) + "\n" + table.text(columns: self.columns)
    }

    // MARK: - Text

    private static func filled(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private static func clipped(_ text: String, _ width: Int) -> String {
        text.count <= width ? text : text.prefix(max(0, width - 1)) + "…"
    }

    private static func trimmed(_ line: String) -> String {
        String(line.reversed().drop { $0 == " " }.reversed())
    }
}

/// How evenly the rows of one layer spread over its experts.
struct LoadSummary: Hashable {
    /// An expert and the rows that it took.
    struct Expert: Hashable {
        var expert: Int
        var rows: UInt64
    }

    /// Total rows of all experts.
    var total: UInt64
    /// Rows of the expert that took the fewest.
    var least: UInt64
    /// The median expert's rows; the lower of two medians.
    var median: UInt64
    /// Rows of the expert that took the most.
    var most: UInt64
    /// Number of experts that took no rows.
    var idle: Int
    /// The experts that took the most, at most eight of them.
    var hottest: [Expert]

    /// Summarizes a layer.
    ///
    /// - Parameter rows: Rows by expert index.
    init(_ rows: [UInt64]) {
        let sorted = rows.sorted()
        self.total = rows.reduce(0, &+)
        self.least = sorted.first ?? 0
        self.median = sorted.isEmpty ? 0 : sorted[(sorted.count - 1) / 2]
        self.most = sorted.last ?? 0
        self.idle = rows.count { $0 == 0 }
        self.hottest = rows.enumerated().map { Expert(expert: $0.offset, rows: $0.element) }
            .filter { $0.rows > 0 }
            .sorted { ($0.rows, $1.expert) > ($1.rows, $0.expert) }
            .prefix(8).map { $0 }
    }
}
