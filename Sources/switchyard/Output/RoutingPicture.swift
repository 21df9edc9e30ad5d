// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes

/// Which experts took the tokens of each sparse layer, drawn for a terminal.
struct RoutingPicture {
    /// One sparse layer: its name and how many token rows each expert took.
    struct Layer {
        /// `encoder 1`, `decoder 3`.
        var name: String
        /// Token rows by expert index.
        var rows: [UInt64]
        /// Tokens that the layer dropped, for whatever reason.
        var dropped: UInt64
    }

    /// Layers from the input to the output.
    var layers: [Layer]
    /// Name of the pool that holds each expert, by expert index.
    var pools: [String]
    /// Whether colours may be used.
    var usesColour: Bool

    /// The picture: a row a layer, a column an expert, darker where more tokens went.
    var text: String {
        let experts = self.layers.map(\.rows.count).max() ?? 0
        guard experts > 0 else { return "no token has been routed yet" }
        let width = 6
        let label = max(12, (self.layers.map(\.name.count).max() ?? 0) + 2)
        var lines: [String] = []
        lines.append(Self.padded("", label) + self.poolHeader(experts: experts, width: width))
        lines.append(
            Self.padded("expert", label)
                + (0..<experts).map { Self.padded("\($0)", width) }.joined()
                + "  dropped"
        )
        for layer in self.layers {
            let most = max(layer.rows.max() ?? 0, 1)
            let cells = (0..<experts)
                .map { expert in
                    let rows = expert < layer.rows.count ? layer.rows[expert] : 0
                    return self.shade(Double(rows) / Double(most), text: Self.padded(" \(rows)", width))
                }
            lines.append(Self.padded(layer.name, label) + cells.joined() + "  \(layer.dropped)")
        }
        return lines.joined(separator: "\n")
    }

    private func poolHeader(experts: Int, width: Int) -> String {
        var text = ""
        var expert = 0
        while expert < experts {
            let pool = expert < self.pools.count ? self.pools[expert] : "?"
            var end = expert + 1
            while end < experts, end < self.pools.count, self.pools[end] == pool { end += 1 }
            text += Self.padded(pool, width * (end - expert))
            expert = end
        }
        return text
    }

    /// A cell on a background between dark and bright; without colours, a bar of one to eight eighths stands in front.
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

    private static func padded(_ text: String, _ width: Int) -> String {
        text.count >= width
            ? String(text.prefix(width)) : text + String(repeating: " ", count: width - text.count)
    }
}
