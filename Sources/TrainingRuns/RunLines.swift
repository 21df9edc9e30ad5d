// SPDX-License-Identifier: Apache-2.0

internal import Tokenization
internal import TrainingData

/// What a run reads: lines of examples, or a text in windows.
enum RunLines: LineSource {
    case lines(FileLines)
    case windows(TextWindows)

    /// Which of a run's examples are read.
    enum Use {
        /// What it learns from, or all there is.
        case everything
        /// A text without its held-out share; lines hold theirs out one by one, later.
        case training(holdingOut: Double)
        /// The held-out share of a text.
        case heldOut(Double)
    }

    /// Opens files.
    ///
    /// - Parameters:
    ///   - paths: The files.
    ///   - settings: How they become examples.
    ///   - use: Which part of a text is read.
    ///   - tokenizer: The model's tokenizer.
    /// - Throws: `DataError` for a file that cannot be read, and for a text with a character that the model lacks.
    init(_ paths: [String], _ settings: ExampleSettings, _ use: Use, _ tokenizer: Tokenizer) throws(DataError) {
        guard case .next(let length) = settings.format else {
            self = .lines(try FileLines(paths))
            return
        }
        let part: TextWindows.Part =
            switch use {
            case .everything: .whole
            case .training(let share): share > 0 ? .first(holdingOut: share) : .whole
            case .heldOut(let share): .last(share)
            }
        let windows = try TextWindows(paths, length: length, part: part)
        let unknown = windows.firstCharacter { character in
            (try? tokenizer.encode(utf8: String(character).utf8)) != nil
        }
        if let unknown {
            let number = String(unknown.character.value, radix: 16, uppercase: true)
            throw DataError(
                .unusableLine,
                "\(unknown.place): the character \(String(unknown.character).debugDescription) (U+\(number)) is not among the"
                    + " model's \(tokenizer.vocabularySize); remove it, or train a model of this text's own characters"
            )
        }
        self = .windows(windows)
    }

    private var source: any LineSource {
        switch self {
        case .lines(let lines): lines
        case .windows(let windows): windows
        }
    }

    var count: Int { self.source.count }

    var fingerprint: UInt64 { self.source.fingerprint }

    func place(of index: Int) -> LinePlace { self.source.place(of: index) }

    func line(_ index: Int) throws(DataError) -> LineContent { try self.source.line(index) }
}

extension ExampleSettings {
    /// Whether the examples are windows of a text, for models without an encoder.
    var isNext: Bool { if case .next = self.format { true } else { false } }
}
