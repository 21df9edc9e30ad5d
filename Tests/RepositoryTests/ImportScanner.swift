// SPDX-License-Identifier: Apache-2.0

/// Finds what a Swift file imports.
enum ImportScanner {
    private static let accessLevels: Set<Substring> = ["public", "package", "internal", "fileprivate", "private"]
    private static let kinds: Set<Substring> = [
        "struct", "class", "enum", "protocol", "typealias", "func", "var", "let",
    ]

    /// The modules that a file imports, with their lines; submodules count as their module.
    ///
    /// - Parameter file: A Swift file.
    /// - Returns: Module and line, in the file's order.
    static func imports(of file: SwiftFile) -> [(module: String, line: Int)] {
        file.code.enumerated()
            .filter { $0.element.holds("import") }
            .flatMap { number, code in
                // Several declarations may stand on a line, between semicolons.
                code.split(separator: ";").compactMap { Self.module(in: $0) }.map { (module: $0, line: number + 1) }
            }
    }

    /// The module that a declaration imports, or nil where it is no import.
    private static func module(in declaration: Substring) -> String? {
        var words = declaration.split(whereSeparator: { $0 == " " || $0 == "\t" })[...]
        while let word = words.first, word.hasPrefix("@") || Self.accessLevels.contains(word) {
            words = words.dropFirst()
        }
        guard words.first == "import" else { return nil }
        words = words.dropFirst()
        if let kind = words.first, Self.kinds.contains(kind) { words = words.dropFirst() }
        return words.first?.split(separator: ".").first.map(String.init)
    }
}

/// Tells code from comments and strings.
enum CodeScanner {
    private enum State {
        case code
        case lineComment
        case blockComment(depth: Int)
        case string
        case longString
    }

    /// The lines of a Swift file with comments and the contents of strings taken out.
    ///
    /// - Parameter file: A Swift file.
    /// - Returns: As many lines as the file has.
    static func code(of file: TextFile) -> [String] {
        var state = State.code
        return file.lines.map { line in
            if case .lineComment = state { state = .code }
            // A string of one line ends with it even where a rule of this scanner has missed its end.
            if case .string = state { state = .code }
            if case .code = state, !line.holds("\""), !line.holds("/") { return String(line) }
            return Self.code(of: Array(line.utf8), &state)
        }
    }

    private static func code(of line: [UInt8], _ state: inout State) -> String {
        var code: [UInt8] = []
        var index = 0
        func next(_ text: StaticString) -> Bool {
            let bytes = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
            return line.count - index >= bytes.count && line[index..<(index + bytes.count)].elementsEqual(bytes)
        }
        while index < line.count {
            switch state {
            case .code:
                if next("//") {
                    state = .lineComment
                    return String(decoding: code, as: UTF8.self)
                } else if next("/*") {
                    state = .blockComment(depth: 1)
                    index += 2
                } else if next("\"\"\"") {
                    state = .longString
                    index += 3
                } else if next("\"") {
                    state = .string
                    index += 1
                } else {
                    code.append(line[index])
                    index += 1
                }
            case .lineComment:
                return String(decoding: code, as: UTF8.self)
            case .blockComment(let depth):
                if next("*/") {
                    state = depth == 1 ? .code : .blockComment(depth: depth - 1)
                    index += 2
                } else if next("/*") {
                    state = .blockComment(depth: depth + 1)
                    index += 2
                } else {
                    index += 1
                }
            case .string:
                if next("\\") {
                    index += 2
                } else {
                    if next("\"") { state = .code }
                    index += 1
                }
            case .longString:
                if next("\\") {
                    index += 2
                } else if next("\"\"\"") {
                    state = .code
                    index += 3
                } else {
                    index += 1
                }
            }
        }
        return String(decoding: code, as: UTF8.self)
    }
}
