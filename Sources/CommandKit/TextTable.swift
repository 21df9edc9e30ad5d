// SPDX-License-Identifier: Apache-2.0

/// A table for the terminal: columns as wide as their widest cell, numbers to the right.
package struct TextTable {
    /// How a column is aligned.
    package enum Alignment {
        case left
        case right
    }

    private var columns: [(title: String, alignment: Alignment)]
    private var rows: [[String]] = []

    /// Creates a table without rows.
    ///
    /// - Parameter columns: Titles and alignments, from the left.
    package init(_ columns: [(title: String, alignment: Alignment)]) {
        self.columns = columns
    }

    /// Adds a row; missing cells stay empty.
    ///
    /// - Parameter cells: The row's cells, from the left.
    package mutating func add(_ cells: [String]) {
        self.rows.append(cells)
    }

    /// The table as text, one line per row, with a rule below the titles.
    package var text: String { self.block(Array(self.columns.indices), limit: nil) }

    /// The table as text whose lines are no longer than a terminal's.
    ///
    /// Columns that do not fit go into more blocks below, each starting with the same leading columns. A cell that is
    /// still too long is cut and ends in `…`.
    ///
    /// - Parameters:
    ///   - limit: How many columns of the terminal a line may take.
    ///   - keys: How many leading columns every block repeats.
    /// - Returns: The blocks, with an empty line between them.
    package func text(columns limit: Int, keys: Int = 1) -> String {
        let widths = self.widths
        let leading = Array(self.columns.indices.prefix(keys))
        func width(_ columns: [Int]) -> Int { columns.map { widths[$0] }.reduce(0, +) + 2 * max(0, columns.count - 1) }
        var blocks: [[Int]] = []
        var current = leading
        for column in self.columns.indices.dropFirst(keys) {
            if current.count > leading.count, width(current + [column]) > limit {
                blocks.append(current)
                current = leading
            }
            current.append(column)
        }
        blocks.append(current)
        return blocks.map { self.block($0, limit: limit) }.joined(separator: "\n\n")
    }

    /// The table as Markdown, for the documents.
    package var markdown: String {
        var lines = ["| " + self.columns.map(\.title).joined(separator: " | ") + " |"]
        lines.append("|" + self.columns.map { $0.alignment == .right ? "---:|" : "---|" }.joined())
        lines += self.rows.map { row in
            "| " + self.columns.indices.map { Self.cell(row, $0) }.joined(separator: " | ") + " |"
        }
        return lines.joined(separator: "\n")
    }

    private var widths: [Int] {
        self.columns.indices.map { column in
            max(self.columns[column].title.count, self.rows.map { Self.cell($0, column).count }.max() ?? 0)
        }
    }

    /// Some of the columns; the widest is narrowed until a line fits.
    private func block(_ columns: [Int], limit: Int?) -> String {
        var widths = self.widths
        if let limit {
            var excess = columns.map { widths[$0] }.reduce(0, +) + 2 * max(0, columns.count - 1) - limit
            while excess > 0 {
                // Numbers are never cut: with a digit missing they are wrong.
                let texts = columns.filter { self.columns[$0].alignment == .left && widths[$0] > 1 }
                guard let text = texts.max(by: { widths[$0] < widths[$1] }) else { break }
                widths[text] -= 1
                excess -= 1
            }
        }
        var lines = [self.line(columns.map { (self.columns[$0].title, $0) }, widths: widths)]
        lines.append(columns.map { String(repeating: "-", count: widths[$0]) }.joined(separator: "  "))
        lines += self.rows.map { row in self.line(columns.map { (Self.cell(row, $0), $0) }, widths: widths) }
        return lines.joined(separator: "\n")
    }

    private func line(_ cells: [(text: String, column: Int)], widths: [Int]) -> String {
        var text = ""
        for (index, cell) in cells.enumerated() {
            let width = widths[cell.column]
            let shown = cell.text.count <= width ? cell.text : cell.text.prefix(max(0, width - 1)) + "…"
            let padding = String(repeating: " ", count: max(0, width - shown.count))
            text += index == 0 ? "" : "  "
            text += self.columns[cell.column].alignment == .right ? padding + shown : shown + padding
        }
        while text.last == " " { text.removeLast() }
        return text
    }

    private static func cell(_ row: [String], _ column: Int) -> String {
        column < row.count ? row[column] : ""
    }
}
