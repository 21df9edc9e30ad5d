// SPDX-License-Identifier: Apache-2.0

/// Rules for single files.
enum SourceRules {
    /// The most lines that a file may have.
    static let maxLines = 600

    private static let words = ["try!", "as!", "fatalError("]

    /// Words in code that end the process where something from outside is wrong.
    ///
    /// - Parameter file: A Swift file.
    /// - Returns: Each place.
    static func forbiddenWords(in file: SwiftFile) -> [Offence] {
        file.code.enumerated()
            .flatMap { number, code in
                Self.words.filter { Self.contains($0, in: code) }
                    .map { word in
                        Offence(
                            path: file.path,
                            line: number + 1,
                            what: "`\(word)` is not used here; throw a typed error"
                        )
                    }
            }
    }

    /// Output past the one writer, which decides what follows when it cannot be written.
    ///
    /// - Parameter file: A Swift file.
    /// - Returns: Each place.
    static func strayOutput(in file: SwiftFile) -> [Offence] {
        file.code.enumerated()
            .flatMap { number, code in
                ["FileHandle.standardOutput", "FileHandle.standardError", "fputs(", "puts("]
                    .filter { Self.contains($0, in: code) }
                    .map { Offence(path: file.path, line: number + 1, what: "`\($0)`: print with `Terminal`") }
                    + (Self.isPlainPrint(code)
                        ? [Offence(path: file.path, line: number + 1, what: "`print(`: print with `Terminal`")] : [])
            }
    }

    /// Whether the standard library's `print` is called: no method of that name, and no declaration of one.
    private static func isPlainPrint(_ code: String) -> Bool {
        code.ranges(of: "print(")
            .contains { range in
                let before = code[..<range.lowerBound]
                guard let last = before.last else { return true }
                return !(last.isLetter || last.isNumber || last == "_" || last == ".") && !before.hasSuffix("func ")
            }
    }

    /// Promises to the compiler that no comment explains.
    ///
    /// - Parameter file: A Swift file.
    /// - Returns: Each place.
    static func unexplainedPromises(in file: SwiftFile) -> [Offence] {
        file.code.enumerated()
            .compactMap { number, code in
                guard code.holds("@unchecked Sendable") || code.holds("nonisolated(unsafe)") else { return nil }
                let around = file.text.lines[max(0, number - 8)...min(file.code.count - 1, number + 3)]
                guard !around.contains(where: { $0.contains("// Safety:") }) else { return nil }
                return Offence(
                    path: file.path,
                    line: number + 1,
                    what: "an unchecked promise without a `Safety:` comment"
                )
            }
    }

    /// Whether a file says under which licence it stands, within its first lines.
    static func hasLicence(_ file: TextFile) -> Bool {
        file.lines.prefix(3).contains { $0.contains("SPDX-License-Identifier: Apache-2.0") }
    }

    /// Whether a word stands in code, not as the end of a longer one and not before an equals sign (`canvas != x`).
    private static func contains(_ word: String, in code: String) -> Bool {
        // Most lines hold none of the words, and that is found out fast.
        code.holds(word)
            && code.ranges(of: word)
                .contains { range in
                    let before = range.lowerBound == code.startIndex ? " " : code[code.index(before: range.lowerBound)]
                    let after = range.upperBound == code.endIndex ? " " : code[range.upperBound]
                    return !(before.isLetter || before.isNumber || before == "_") && after != "="
                }
    }
}
