// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Elements and styles that figures are made of.
package enum SVG {
    /// The number of colours.
    package static var colourCount: Int { Self.light.count }

    /// The number of mark shapes.
    package static let markCount = 4

    /// The number of line styles: one solid, the others dashed.
    package static let dashCount = 4

    static let titleSize = 17.0
    static let headSize = 13.0
    static let labelSize = 12.5
    static let smallSize = 11.5

    /// Colours that people with any colour vision can tell apart.
    ///
    /// After Okabe and Ito, "Color Universal Design" (2008), darker where thin lines on white need it; the dark page has
    /// lighter ones of the same hues.
    private static let light = ["#0072b2", "#d55e00", "#00805c", "#a8467d", "#4d5965", "#8a6d00"]
    private static let dark = ["#56b4e9", "#f0904c", "#2fc99a", "#e09cc4", "#b9c3cc", "#e0c94a"]

    /// The beginning of a file: its size, its title for screen readers, its styles and the page.
    static func head(title: String, width: Double, height: Double) -> [String] {
        [
            "<!-- SPDX-License-Identifier: Apache-2.0 -->",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Self.number(width)) \(Self.number(height))\""
                + " width=\"\(Self.number(width))\" height=\"\(Self.number(height))\" role=\"img\">",
            "<title>\(Self.escaped(title))</title>",
            "<style>\n\(Self.style)\n</style>",
            "<rect class=\"page\" width=\"\(Self.number(width))\" height=\"\(Self.number(height))\"/>",
        ]
    }

    /// The style sheet of every figure: a light page, and a dark one where the reader's system asks for it.
    static var style: String {
        func colours(_ list: [String]) -> String {
            list.enumerated().map { ".stroke\($0) { stroke: \($1); } .fill\($0) { fill: \($1); }" }
                .joined(separator: "\n")
        }
        func page(_ background: String, _ ink: String, _ pale: String, _ grid: String, _ panel: String) -> String {
            ".page, .halo { fill: \(background); } text { fill: \(ink); } .small, .sub { fill: \(pale); }\n"
                + ".grid { stroke: \(grid); } .frame, .ref { stroke: \(pale); } .panel { fill: \(panel); stroke: \(grid); }"
                + "\n.halo { stroke: \(background); } .arrow { stroke: \(pale); } .tip { fill: \(pale); }"
        }
        return """
            text { font-family: Helvetica, Arial, "Liberation Sans", sans-serif; }
            .title { font-size: 17px; font-weight: bold; } .head { font-size: 13px; font-weight: bold; }
            .label, .sub { font-size: 12.5px; } .small { font-size: 11.5px; }
            .grid { stroke-width: 1; } .frame { fill: none; stroke-width: 1; }
            .ref { stroke-width: 1; stroke-dasharray: 5 4; } .panel { stroke-width: 1.2; }
            .curve { fill: none; stroke-width: 1.9; stroke-linejoin: round; } .fine { stroke-width: 1.2; }
            .bar { stroke-width: 1.2; stroke-opacity: 0.75; } .arrow { fill: none; stroke-width: 1.6; }
            .dash1 { stroke-dasharray: 7 3; } .dash2 { stroke-dasharray: 2 3; } .dash3 { stroke-dasharray: 9 3 2 3; }
            .box { fill-opacity: 0.13; stroke-width: 1.4; } .group { fill: none; stroke-width: 1.2; }
            \(page("#ffffff", "#1c2a38", "#55636f", "#e1e6eb", "#f5f7f9"))
            \(colours(Self.light))
            @media (prefers-color-scheme: dark) {
            .box { fill-opacity: 0.2; }
            \(page("#0d1117", "#e6edf3", "#9aa7b4", "#2a323c", "#151b23"))
            \(colours(Self.dark))
            }
            """
    }

    /// A coordinate, to a tenth of a pixel.
    package static func number(_ value: Double) -> String {
        let text = String(format: "%.1f", value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    /// A text escaped for an element or an attribute.
    package static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            // XML 1.0 has no other control characters (section 2.2).
            case "\t", "\n", "\r": result.unicodeScalars.append(scalar)
            case _ where scalar.value < 0x20 || scalar.value == 0xFFFE || scalar.value == 0xFFFF: continue
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ name: String) -> String {
        "<line class=\"\(name)\" x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\""
            + " x2=\"\(Self.number(x2))\" y2=\"\(Self.number(y2))\"/>"
    }

    static func text(_ text: String, x: Double, y: Double, _ name: String, anchor: String = "start") -> String {
        "<text class=\"\(name)\" x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor)\">"
            + "\(Self.escaped(text))</text>"
    }

    /// The mark of a series: a circle, a square, a triangle or a diamond.
    static func mark(_ look: SVGPlot.Look, x: Double, y: Double) -> String {
        let name = "fill\(look.colour)"
        let points: [(Double, Double)]
        switch look.mark % Self.markCount {
        case 0: return "<circle class=\"\(name)\" cx=\"\(Self.number(x))\" cy=\"\(Self.number(y))\" r=\"3.6\"/>"
        case 1: points = [(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)]
        case 2: points = [(0, -4.4), (4.2, 3.2), (-4.2, 3.2)]
        default: points = [(0, -4.6), (4.6, 0), (0, 4.6), (-4.6, 0)]
        }
        let text = points.map { "\(Self.number(x + $0.0)),\(Self.number(y + $0.1))" }.joined(separator: " ")
        return "<polygon class=\"\(name)\" points=\"\(text)\"/>"
    }
}
