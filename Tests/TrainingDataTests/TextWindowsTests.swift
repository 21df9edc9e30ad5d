// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Tokenization

@testable import TrainingData

@Suite("Windows of a text")
struct TextWindowsTests {
    /// A folder with files.
    private func inFolder(_ files: [String: String], _ body: ([String: String]) throws -> Void) throws {
        let folder = NSTemporaryDirectory() + "windows-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for (name, text) in files { try text.write(toFile: "\(folder)/\(name)", atomically: true, encoding: .utf8) }
        try body(Dictionary(uniqueKeysWithValues: files.keys.map { ($0, "\(folder)/\($0)") }))
    }

    private func text(_ windows: TextWindows, _ index: Int) throws -> String {
        guard case .bytes(let bytes) = try windows.line(index) else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test("A window begins a fixed number of code points after the last, and goes on as far as an example may")
    func cuts() throws {
        try self.inFolder(["a.txt": "aé€😀b\nc", "b.txt": "d\nef"]) { paths in
            let files = [try #require(paths["a.txt"]), try #require(paths["b.txt"])]
            let windows = try TextWindows(files, length: 3)
            // Eleven code points: (11 - 1) / 3 windows.
            #expect(windows.count == 3)
            #expect(try (0..<3).map { try self.text(windows, $0) } == ["aé€😀b\n", "😀b\ncd\n", "cd\nef"])
            #expect(windows.place(of: 0) == LinePlace(file: files[0], number: 1))
            #expect(windows.place(of: 2) == LinePlace(file: files[0], number: 2))
            #expect(try TextWindows(files, length: 2).place(of: 4) == LinePlace(file: files[1], number: 1))
            #expect(try TextWindows(files, length: 3).fingerprint == windows.fingerprint)
            #expect(try TextWindows(files, length: 2).fingerprint != windows.fingerprint)
            #expect(try TextWindows.characters(of: files) == "\nabcdefé€😀")
        }
    }

    @Test("A held-out share is the text's end, and the rest does not overlap it")
    func parts() throws {
        try self.inFolder(["a.txt": "0123456789é€"]) { paths in
            let files = [try #require(paths["a.txt"])]
            let first = try TextWindows(files, length: 2, part: .first(holdingOut: 0.25))
            let last = try TextWindows(files, length: 2, part: .last(0.25))
            #expect(try (0..<first.count).map { try self.text(first, $0) } == ["0123", "2345", "4567", "678"])
            #expect(try (0..<last.count).map { try self.text(last, $0) } == ["9é€"])
            #expect(first.fingerprint != last.fingerprint)
        }
    }

    @Test("Examples are a window's characters and those behind; in training they begin at a draw of its own each epoch")
    func examples() throws {
        let text = String((0..<103).map { Character(UnicodeScalar(UInt8(33 + $0 % 90))) })
        try self.inFolder(["a.txt": text]) { paths in
            let files = [try #require(paths["a.txt"])]
            let tokenizer = try Tokenizer(characters: try TextWindows.characters(of: files), path: "test")
            let windows = try TextWindows(files, length: 10)
            let ids = tokenizer.encode(text)
            func stream(_ use: ExampleStream<TextWindows>.Use) throws -> ExampleStream<TextWindows> {
                var settings = ExampleSettings(format: .next(length: 10))
                (settings.maximumInputTokens, settings.maximumTargetTokens) = (10, 10)
                return try ExampleStream(windows, settings: settings, tokenizer: tokenizer, use: use, seed: 3)
            }
            var all = try stream(.everything)
            for window in 0..<10 {
                let example = try #require(try all.next())
                #expect(example.input == Array(ids[10 * window..<10 * window + 10]))
                #expect(example.target == Array(ids[10 * window + 1...10 * window + 10]))
            }
            #expect(try all.next() == nil)
            var training = try stream(.training(epochs: 2))
            var (starts, seen): ([Int], [Int]) = ([], [])
            while let example = try training.next() {
                seen.append(example.line)
                // Ids repeat after ninety characters, so the window tells which of two places it is.
                let first = try #require(
                    (10 * example.line..<10 * example.line + 10)
                        .first { start in
                            start + 10 < ids.count && Array(ids[start..<start + 10]) == example.input
                        }
                )
                #expect(example.target == Array(ids[first + 1...first + 10]))
                starts.append(first - 10 * example.line)
            }
            #expect(seen.prefix(10).sorted() == Array(0..<10) && seen.suffix(10).sorted() == Array(0..<10))
            #expect(seen.prefix(10) != seen.suffix(10))
            #expect(Set(starts).count > 3)
            // The last window has but three characters more than an example.
            #expect(zip(seen, starts).allSatisfy { $0 < 9 || $1 <= 2 })
        }
    }

    @Test("Too short a text, a share without an end, bytes that are no text and a missing file are refused by name")
    func refusals() throws {
        try self.inFolder(["a.txt": "abcdefgh", "b.txt": ""]) { paths in
            let a = try #require(paths["a.txt"])
            try Data([0x61, 0xFF, 0x62]).write(to: URL(fileURLWithPath: "\(a).bad"))
            for (files, length, part, words) in [
                ([a], 8, TextWindows.Part.whole, "need 9"), ([a], 0, .whole, "at least 1"),
                ([a], 4, .last(0.1), "need 5"), ([a], 4, .last(1), "below 1"), (["\(a).bad"], 1, .whole, "UTF-8"),
                (["\(a).none"], 1, .whole, "cannot be opened"),
                ([try #require(paths["b.txt"])], 1, .whole, "0 characters"),
            ] {
                let error = #expect(throws: DataError.self) { try TextWindows(files, length: length, part: part) }
                #expect(error?.description.contains(words) == true, "\(words): \(error?.description ?? "")")
            }
            let found = try TextWindows([a], length: 2).firstCharacter { $0 != "f" }
            #expect(found?.character == "f" && found?.place == LinePlace(file: a, number: 1))
        }
    }
}
