// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Phrases that an English reader stumbles over, or a second word for what already has one.
struct Phrase: Sendable, CustomStringConvertible {
    /// A regular expression, matched regardless of case.
    let pattern: String
    /// What to write.
    let instead: String

    init(_ pattern: String, _ instead: String) {
        self.pattern = pattern
        self.instead = instead
    }

    var description: String { self.pattern }

    static let all: [Phrase] = [
        Phrase(#"\bmeant was\b"#, "did you mean"),
        Phrase(#"\bwhoever\b"#, "who does it: the caller, a client, anyone who"),
        Phrase(#"\bmend(s|ed|ing)?\b"#, "fix"),
        Phrase(#"\bsays by\b"#, "returns, or answers with"),
        Phrase(#"\bthose of the lucky\b"#, "only the calls that finished"),
        Phrase(#"\bof peace\b"#, "asks to wait"),
        Phrase(#"\bleft alone\b"#, "ejected, or untouched"),
        Phrase(#"\ban own\b"#, "its own, or a separate"),
        Phrase(#"\bhas no need of\b"#, "does not need"),
        Phrase(#"\bso many\b"#, "this many, or a number: `the K best tokens`"),
        Phrase(#"\bas (gRPC|HTTP|Prometheus|transformers|RFC \d+) has it\b"#, "as gRPC specifies"),
        Phrase(#"\bin the place of\b"#, "in place of"),
        Phrase(#"\bunder way\b"#, "in flight, or running"),
        Phrase(#"\b(0 means|means that there is|means) no (such )?limit\b"#, "unlimited"),
        Phrase(#"\b(is|gets|be) well again\b"#, "has recovered"),
        Phrase(#"\bwithout a word\b"#, "silently"),
        Phrase(#"\bis not made for\b"#, "is not valid for"),
        Phrase(#"\bset them's own\b"#, "its own"),
        Phrase(
            #"\b(tokens|rows|calls|bytes|resets|steps|requests|inputs) a "#
                + #"(second|step|replica|row|token|connection|minute|host|pool|panel)\b"#,
            "per: tokens per second"
        ),
    ]
}

@Suite("Plain English")
struct PhraseTests {
    /// Everything that people read: code and its comments, documents, protocol files and scripts.
    ///
    /// Each in one line: a phrase may be broken over two lines, whose comment marks are left out.
    private static let texts = Result { () throws -> [(path: String, text: String)] in
        let kinds: Set<String> = ["swift", "c", "h", "proto", "md", "sh", "py", "yaml", "cc", "ipynb"]
        return try Repository.files(in: "", extensions: kinds)
            .filter { !$0.isGenerated && !$0.path.hasSuffix("RepositoryTests/PhraseTests.swift") }
            .map { ($0.path, $0.lines.map { Self.withoutMarks($0) }.joined(separator: " ")) }
    }

    @Test("no text uses a phrase that has a plain word", arguments: Phrase.all)
    func phrases(phrase: Phrase) throws {
        let expression = try NSRegularExpression(pattern: phrase.pattern, options: [.caseInsensitive])
        let texts = try Self.texts.get()
        #expect(!texts.isEmpty)
        var offences: [Offence] = []
        for (path, text) in texts {
            let range = NSRange(text.startIndex..., in: text)
            for match in expression.matches(in: text, range: range) {
                guard let found = Range(match.range, in: text) else { continue }
                offences.append(
                    Offence(path: path, line: 0, what: "\"\(text[found])\": write \(phrase.instead)")
                )
            }
        }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("a phrase is found across lines of a comment and whatever its case")
    func finds() throws {
        let expression = try NSRegularExpression(pattern: Phrase.all[5].pattern, options: [.caseInsensitive])
        let text = ["    /// Two seconds Of", "    /// peace."].map { Self.withoutMarks(Substring($0)) }
            .joined(separator: " ")
        #expect(expression.firstMatch(in: text, range: NSRange(text.startIndex..., in: text)) != nil)
    }

    /// A line without its indentation and the mark that makes it a comment.
    private static func withoutMarks(_ line: Substring) -> Substring {
        let text = line.drop { $0 == " " || $0 == "\t" }
        let marks = text.prefix { $0 == "/" || $0 == "#" || $0 == "*" }
        return marks.isEmpty ? text : text.dropFirst(marks.count).drop { $0 == " " }
    }
}
