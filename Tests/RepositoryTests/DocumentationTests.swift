// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("Documents")
struct DocumentationTests {
    @Test("the documents exist", arguments: ["README.md", "docs/architecture.md", "docs/dependencies.md"])
    func exists(path: String) throws {
        #expect(Repository.exists(path))
    }

    @Test("relative links point to files and headings that exist")
    func links() throws {
        let files = try Repository.files(in: "", extensions: ["md"])
        #expect(!files.isEmpty)
        let anchors = Dictionary(
            files.map { ($0.path, MarkdownScanner.anchors(in: $0)) },
            uniquingKeysWith: { first, _ in first }
        )
        var offences: [Offence] = []
        for file in files {
            for (target, line) in MarkdownScanner.links(in: file) where !Self.isElsewhere(target) {
                let parts = target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
                let path = parts[0].isEmpty ? file.path : Self.resolve(String(parts[0]), from: file.path)
                if !Repository.exists(path) {
                    offences.append(Offence(path: file.path, line: line, what: "nothing is at \(target)"))
                } else if parts.count == 2, let known = anchors[path], !known.contains(String(parts[1])) {
                    offences.append(Offence(path: file.path, line: line, what: "no heading is at \(target)"))
                }
            }
        }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    /// Whether a link leaves the project.
    private static func isElsewhere(_ target: String) -> Bool {
        target.contains("://") || target.hasPrefix("mailto:")
    }

    /// The path from the root of a target that is written relative to a file.
    private static func resolve(_ target: String, from path: String) -> String {
        var parts = target.hasPrefix("/") ? [] : path.split(separator: "/").dropLast().map(String.init)
        for part in target.split(separator: "/") where part != "." {
            if part == ".." {
                _ = parts.popLast()
            } else {
                parts.append(String(part))
            }
        }
        return parts.joined(separator: "/")
    }
}
