// SPDX-License-Identifier: Apache-2.0

/// A table for the terminal: columns as wide as their widest cell, numbers to the right.
package struct TextTable {
    /// How a column is set.
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

    /// The table as text, one line a row, with a rule below the titles.
    package var text: String {
        let widths = self.columns.indices.map { column in
            max(self.columns[column].title.count, self.rows.map { Self.cell($0, column).count }.max() ?? 0)
        }
        var lines = [self.line(self.columns.map(\.title), widths: widths)]
        lines.append(widths.map { String(repeating: "-", count: $0) }.joined(separator: "  "))
        lines += self.rows.map { row in self.line(widths.indices.map { Self.cell(row, $0) }, widths: widths) }
        return lines.joined(separator: "\n")
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

    private func line(_ cells: [String], widths: [Int]) -> String {
        var text = ""
        for (column, cell) in cells.enumerated() {
            let padding = String(repeating: " ", count: max(0, widths[column] - cell.count))
            text += column == 0 ? "" : "  "
            text += self.columns[column].alignment == .right ? padding + cell : cell + padding
        }
        while text.last == " " { text.removeLast() }
        return text
    }

    private static func cell(_ row: [String], _ column: Int) -> String {
        column < row.count ? row[column] : ""
    }
}
