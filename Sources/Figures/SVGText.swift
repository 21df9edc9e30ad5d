// SPDX-License-Identifier: Apache-2.0

/// How wide texts are, so that margins and legends are large enough.
///
/// The widths are Helvetica's, which Arial and the fonts that stand in for it share.
package enum SVGText {
    /// Thousandths of the font size, for the printable characters of ASCII in order.
    private static let widths: [Double] = [
        278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278,
        556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556,
        1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
        667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556,
        333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556,
        556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
    ]

    /// The width of a text on one line.
    ///
    /// - Parameters:
    ///   - text: Any text; characters outside ASCII count as wide ones.
    ///   - size: Font size, in pixels.
    ///   - isBold: Whether the text is bold, which makes it a little wider.
    /// - Returns: Pixels.
    package static func width(_ text: String, size: Double, isBold: Bool = false) -> Double {
        let sum = text.unicodeScalars.reduce(0.0) { sum, scalar in
            let index = Int(scalar.value) - 32
            return sum + (self.widths.indices.contains(index) ? self.widths[index] : 667)
        }
        return sum / 1000 * size * (isBold ? 1.07 : 1)
    }

    /// A text cut into lines between words.
    ///
    /// - Parameters:
    ///   - text: Words with single spaces.
    ///   - width: The width of a line, in pixels; a longer word gets its own line.
    ///   - size: Font size, in pixels.
    /// - Returns: The lines.
    package static func lines(_ text: String, width: Double, size: Double) -> [String] {
        var lines: [String] = []
        for word in text.split(separator: " ") {
            if let last = lines.last, self.width("\(last) \(word)", size: size) <= width {
                lines[lines.count - 1] = "\(last) \(word)"
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }
}
