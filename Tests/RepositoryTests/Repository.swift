// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The working copy that the tests were built from.
enum Repository {
    /// Its root: the folder above `Tests`.
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Every Swift file of the sources, read and scanned once for all rules.
    static let swiftSources = Result { () throws -> [SwiftFile] in
        try Self.files(in: "Sources", extensions: ["swift"]).map { SwiftFile(text: $0) }
    }

    /// Every file of the project below a folder, without what was built, fetched or hidden.
    ///
    /// - Parameters:
    ///   - folder: Path from the root; the root itself if empty.
    ///   - extensions: How the files' names end, without the dot.
    /// - Returns: The files, ordered by path.
    /// - Throws: Whatever keeps a file from being read.
    static func files(in folder: String, extensions: Set<String>) throws -> [TextFile] {
        let start = folder.isEmpty ? Self.root : Self.root.appendingPathComponent(folder)
        let walk = FileManager.default.enumerator(
            at: start,
            includingPropertiesForKeys: [.isDirectoryKey],
            options: [.skipsHiddenFiles]
        )
        var found: [TextFile] = []
        for case let url as URL in walk ?? .init() where extensions.contains(url.pathExtension) {
            let path = String(url.path.dropFirst(Self.root.path.count + 1))
            let isDirectory = try url.resourceValues(forKeys: [.isDirectoryKey]).isDirectory ?? false
            if !isDirectory { found.append(TextFile(path: path, text: try Self.read(path))) }
        }
        return found.sorted { $0.path < $1.path }
    }

    /// The text of a file.
    ///
    /// - Parameter path: Path from the root.
    /// - Returns: Its text; bytes that are not UTF-8 are replaced.
    /// - Throws: Whatever keeps the file from being read.
    static func read(_ path: String) throws -> String {
        String(decoding: try Data(contentsOf: Self.root.appendingPathComponent(path)), as: UTF8.self)
    }

    /// Whether something exists at a path from the root.
    static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: Self.root.appendingPathComponent(path).path)
    }
}

/// A text file and where it is in the project.
struct TextFile {
    let path: String
    let lines: [Substring]

    init(path: String, text: String) {
        self.path = path
        self.lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    }

    /// The target that a file below `Sources` or `Tests` belongs to.
    var target: String? {
        let parts = self.path.split(separator: "/")
        return parts.count > 2 ? String(parts[1]) : nil
    }

    /// Lines of text; an ending newline begins no other one.
    var lineCount: Int { self.lines.last?.isEmpty == true ? self.lines.count - 1 : self.lines.count }

    /// Whether a program wrote it, by what its first lines say.
    var isGenerated: Bool {
        self.lines.prefix(5)
            .contains { line in
                let text = line.lowercased()
                return text.contains("generated") && (text.contains("do not edit") || text.contains("edit generated"))
            }
    }
}

/// A Swift file and what of it is code.
struct SwiftFile {
    let text: TextFile
    /// The file's lines without comments and the contents of strings.
    let code: [String]

    init(text: TextFile) {
        self.text = text
        self.code = CodeScanner.code(of: text)
    }

    init(path: String, text: String) {
        self.init(text: TextFile(path: path, text: text))
    }

    var path: String { self.text.path }
    var target: String? { self.text.target }
}

/// A place that breaks a rule.
struct Offence: CustomStringConvertible, Equatable {
    let path: String
    let line: Int
    let what: String

    var description: String { "\(self.path):\(self.line): \(self.what)" }
}

/// All offences, one a line, for a failed expectation.
func report(_ offences: [Offence]) -> String {
    "\(offences.count) found\n" + offences.map(\.description).joined(separator: "\n")
}

extension StringProtocol {
    /// Whether a word stands somewhere in the text, compared byte by byte: in a debug build many times as fast as the
    /// standard library's search.
    func holds(_ word: String) -> Bool {
        self.withCString { text in word.withCString { strstr(text, $0) != nil } }
    }
}
