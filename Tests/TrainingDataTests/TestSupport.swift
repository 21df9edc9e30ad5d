// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Tokenization

@testable import TrainingData

/// What the tests of this target share.
enum Support {
    /// The repository's root.
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// The miniature's tokenizer: 1,948 pieces and 100 sentinels.
    static func tokenizer() throws -> Tokenizer {
        try Tokenizer(directory: Self.root.appending(path: "deploy/models/switch-mini").path)
    }

    /// A fixture of `make_training_data_fixtures.py`.
    static func fixture<T: Decodable>(_ type: T.Type, _ name: String) throws -> T {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/\(name).json")
        return try JSONDecoder().decode(type, from: Data(contentsOf: file))
    }

    /// Runs a body with files in a folder of their own.
    static func withFiles(_ contents: [[UInt8]], _ body: ([String]) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "training-data-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let paths = try contents.enumerated()
            .map { index, bytes in
                let file = folder.appending(path: "part-\(index).txt")
                try Data(bytes).write(to: file)
                return file.path
            }
        try body(paths)
    }

    /// Lines of plain text of different lengths.
    static func prose(_ count: Int) -> [String] {
        let words = "the king and his queen went to see a ship that came over the sea with gold".split(separator: " ")
        return (0..<count)
            .map { line in
                (0..<(3 + line * 7 % 23)).map { String(words[(line * 5 + $0 * 3) % words.count]) }
                    .joined(separator: " ")
            }
    }

    /// JSON lines of input and target.
    static func pairs(_ count: Int) -> [String] {
        self.prose(count).enumerated().map { "{\"input\": \"\($0.element)\", \"target\": \"line \($0.offset)\"}" }
    }

    /// Settings for ``pairs(_:)``.
    static let pairSettings: ExampleSettings = {
        var settings = ExampleSettings(format: .jsonLines(input: "input", target: "target"))
        settings.maximumTargetTokens = 100
        return settings
    }()
}
