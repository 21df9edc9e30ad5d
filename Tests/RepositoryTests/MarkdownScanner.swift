// SPDX-License-Identifier: Apache-2.0

/// Finds links and headings of markdown files.
enum MarkdownScanner {
    /// Targets of links and pictures outside code, with their lines.
    ///
    /// - Parameter file: A markdown file.
    /// - Returns: Target and line, in the file's order.
    static func links(in file: TextFile) -> [(target: String, line: Int)] {
        self.prose(of: file)
            .flatMap { number, line in
                var targets: [(position: String.Index, target: String)] = []
                for (opening, closing) in [("](", ")"), ("src=\"", "\""), ("href=\"", "\"")] {
                    for range in line.holds(opening) ? line.ranges(of: opening) : [] {
                        let rest = line[range.upperBound...]
                        guard let end = rest.firstRange(of: closing) else { continue }
                        // A title may follow the target.
                        let target = rest[..<end.lowerBound].split(separator: " ").first.map(String.init) ?? ""
                        targets.append((range.lowerBound, target))
                    }
                }
                return targets.sorted { $0.position < $1.position }.map { (target: $0.target, line: number) }
            }
    }

    /// The anchors of a file's headings, as GitHub makes them.
    ///
    /// - Parameter file: A markdown file.
    /// - Returns: The anchors.
    static func anchors(in file: TextFile) -> Set<String> {
        Set(
            self.lines(of: file).filter { $0.text.hasPrefix("#") }
                .map { _, line in
                    var title = line.drop { $0 == "#" }.drop { $0 == " " }
                    // Of a link its text counts.
                    while let start = title.firstRange(of: "]("),
                        let end = title[start.upperBound...].firstIndex(of: ")")
                    {
                        title = title.replacingCharacters(in: start.lowerBound...end)
                    }
                    return String(
                        title.lowercased()
                            .compactMap { character in
                                if character == " " { return "-" }
                                return character.isLetter || character.isNumber || character == "-" || character == "_"
                                    ? character : nil
                            }
                    )
                }
        )
    }

    /// Lines outside code blocks, with code spans taken out.
    private static func prose(of file: TextFile) -> [(number: Int, text: String)] {
        self.lines(of: file)
            .map { number, line in
                // Every second piece between backticks is code; an odd number of backticks leaves the rest as it is.
                let pieces = line.split(separator: "`", omittingEmptySubsequences: false)
                guard pieces.count % 2 == 1 else { return (number, String(line)) }
                return (number, pieces.enumerated().map { $0.offset % 2 == 0 ? String($0.element) : "" }.joined())
            }
    }

    /// Lines outside code blocks.
    private static func lines(of file: TextFile) -> [(number: Int, text: Substring)] {
        var isCode = false
        return file.lines.enumerated()
            .compactMap { index, line in
                if line.drop(while: { $0 == " " }).hasPrefix("```") {
                    isCode.toggle()
                    return nil
                }
                return isCode ? nil : (index + 1, line)
            }
    }
}

extension Substring {
    /// The text without a range of its characters.
    fileprivate func replacingCharacters(in range: ClosedRange<Index>) -> Substring {
        self[..<range.lowerBound] + self[self.index(after: range.upperBound)...]
    }
}
