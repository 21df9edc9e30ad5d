// SPDX-License-Identifier: Apache-2.0

public import Tokenization

/// The examples of a run, one after the other, from any position on.
///
/// What comes next is a function of the lines, the settings, the seed and the position: nothing else is remembered.
public struct ExampleStream<Lines: LineSource>: Sendable {
    /// Which lines are read, in what order, and how often.
    public enum Use: Sendable, Hashable {
        /// The lines to learn from, in an order of its own each epoch; without an end where `epochs` is nil.
        case training(epochs: Int?)
        /// The lines that are held out, once.
        case evaluation
        /// All lines, once, as they stand in the files.
        case everything
    }

    /// Where the next example begins.
    public private(set) var position: DataPosition

    /// The lines that could not be used since the stream was made.
    public private(set) var faults = FaultSummary()

    /// How many lines an epoch has.
    public let linesPerEpoch: Int

    private let lines: Lines
    private let maker: ExampleMaker
    private let use: Use
    private let split: DataSplit
    private var order: Permutation
    /// A line that was read and did not fit; kept so that it is not read twice.
    private var lookahead: (place: Int, tokens: [Int32])?

    /// Makes a stream.
    ///
    /// - Parameters:
    ///   - lines: The lines.
    ///   - settings: How lines become examples.
    ///   - tokenizer: The model's tokenizer.
    ///   - use: Which lines are read, in what order, and how often.
    ///   - evaluationShare: The share of lines that is held out; the same for both uses.
    ///   - seed: The seed of the order, the masks and what is held out.
    ///   - position: Where to read on; nil for the beginning.
    /// - Throws: ``DataError`` when the settings are wrong, when there is no line, or when the position is for other lines,
    ///   settings or another seed.
    public init(
        _ lines: Lines,
        settings: ExampleSettings,
        tokenizer: Tokenizer,
        use: Use,
        evaluationShare: Double = 0,
        seed: UInt64,
        resumingAt position: DataPosition? = nil
    ) throws(DataError) {
        self.maker = try ExampleMaker(settings: settings, tokenizer: tokenizer)
        self.split = try DataSplit(lineCount: lines.count, evaluationShare: evaluationShare, seed: seed)
        self.lines = lines
        self.use = use
        switch use {
        case .training: self.linesPerEpoch = self.split.trainingCount
        case .evaluation: self.linesPerEpoch = self.split.evaluationCount
        case .everything: self.linesPerEpoch = lines.count
        }
        guard self.linesPerEpoch > 0 else {
            throw DataError(
                .noExamples,
                "there is no line to read: \(lines.count) lines, of which \(self.split.evaluationCount) are held out; give "
                    + "more lines, or another share to hold out"
            )
        }
        var fingerprint = ContentHash()
        fingerprint.add(Int(truncatingIfNeeded: lines.fingerprint))
        fingerprint.add(lines.count)
        fingerprint.add(self.split.evaluationCount)
        fingerprint.add(tokenizer.vocabularySize)
        Array(settings.canonicalText.utf8).withUnsafeBytes { fingerprint.add(last: $0) }
        let start = DataPosition(seed: seed, fingerprint: fingerprint.value)
        self.position = try Self.checked(position ?? start, start: start, lines: self.linesPerEpoch)
        self.order = Permutation(count: self.linesPerEpoch, seed: seed, epoch: UInt64(self.position.epoch))
    }

    private static func checked(
        _ position: DataPosition,
        start: DataPosition,
        lines: Int
    ) throws(DataError) -> DataPosition {
        guard position.seed == start.seed else {
            throw DataError(
                .otherPosition,
                "the saved position is for the seed \(position.seed), not \(start.seed); resume with the same seed"
            )
        }
        guard position.fingerprint == start.fingerprint else {
            throw DataError(
                .otherPosition,
                "the saved position is for other data or other data settings; resume with the same files and settings, or "
                    + "start a new run"
            )
        }
        guard position.epoch >= 0, position.place >= 0, position.place <= lines, position.part >= 0,
            position.examplesBeforeEpoch >= 0, position.examples >= position.examplesBeforeEpoch, position.faults >= 0
        else {
            throw DataError(
                .otherPosition,
                "the saved position (epoch \(position.epoch), place \(position.place) of \(lines), part \(position.part)) "
                    + "is damaged; resume from another save"
            )
        }
        return position
    }

    /// How lines become examples.
    public var settings: ExampleSettings { self.maker.settings }

    /// Whether the stream has no end.
    public var isEndless: Bool { self.use == .training(epochs: nil) }

    /// Where a line stands.
    ///
    /// - Parameter index: The line's index, as examples have it.
    /// - Returns: Its file and number.
    public func place(of index: Int) -> LinePlace { self.lines.place(of: index) }

    private func lineIndex(_ place: Int) -> Int {
        switch self.use {
        case .training: self.split.trainingLine(self.order[place])
        case .evaluation: self.split.evaluationLine(place)
        case .everything: place
        }
    }

    /// The next example.
    ///
    /// - Returns: The example, or nil at the end.
    /// - Throws: ``DataError`` when a file cannot be read, when a line cannot be used and that is an error, or when a whole
    ///   epoch has no line that can be used.
    public mutating func next() throws(DataError) -> TokenizedExample? {
        while true {
            if self.position.place >= self.linesPerEpoch, try !self.beginEpoch() {
                return nil
            }
            let example: TokenizedExample?
            switch self.maker.settings.format {
            case .text: example = try self.nextText()
            case .next: example = try self.nextWindow()
            case .jsonLines, .tabSeparated: example = try self.nextPair()
            }
            if let example {
                self.position.examples += 1
                return example
            }
        }
    }

    /// Begins another epoch, if there is one.
    private mutating func beginEpoch() throws(DataError) -> Bool {
        guard case .training(let epochs) = self.use, epochs.map({ self.position.epoch + 1 < $0 }) ?? true else {
            return false
        }
        guard self.position.examples > self.position.examplesBeforeEpoch else {
            throw DataError(
                .noExamples,
                "none of \(self.linesPerEpoch) lines can be used:\n\(self.faults)\ncheck the format and the field names"
            )
        }
        self.position.epoch += 1
        self.position.place = 0
        self.position.part = 0
        self.position.examplesBeforeEpoch = self.position.examples
        self.order = Permutation(
            count: self.linesPerEpoch,
            seed: self.position.seed,
            epoch: UInt64(self.position.epoch)
        )
        return true
    }

    private mutating func note(_ reason: LineFault.Reason, line: Int) throws(DataError) {
        let fault = LineFault(self.lines.place(of: line), reason)
        self.faults.add(fault)
        self.position.faults += 1
        let isBlankText = reason == .empty && self.maker.settings.format == .text
        if self.maker.settings.faultRule == .fail, !isBlankText {
            throw DataError(.unusableLine, "\(fault); correct or remove it, or count such lines instead")
        }
    }

    private mutating func nextPair() throws(DataError) -> TokenizedExample? {
        let line = self.lineIndex(self.position.place)
        self.position.place += 1
        let content = try self.lines.line(line)
        do throws(LineFault.Reason) {
            return try self.maker.pair(content, line: line)
        } catch {
            try self.note(error, line: line)
            return nil
        }
    }

    private mutating func nextWindow() throws(DataError) -> TokenizedExample? {
        let line = self.lineIndex(self.position.place)
        self.position.place += 1
        let content = try self.lines.line(line)
        var random: KeyedRandom?
        if case .training = self.use {
            random = KeyedRandom(key: self.position.seed, UInt64(self.position.epoch), UInt64(line))
        }
        do throws(LineFault.Reason) {
            return try self.maker.window(content, line: line, random: random)
        } catch {
            try self.note(error, line: line)
            return nil
        }
    }

    /// The tokens of the line at a place; nil where it cannot be used, which is noted.
    private mutating func tokens(at place: Int) throws(DataError) -> [Int32]? {
        if let lookahead, lookahead.place == place {
            return lookahead.tokens
        }
        let line = self.lineIndex(place)
        let content = try self.lines.line(line)
        do throws(LineFault.Reason) {
            return try self.maker.tokens(of: content)
        } catch {
            try self.note(error, line: line)
            return nil
        }
    }

    private mutating func nextText() throws(DataError) -> TokenizedExample? {
        let place = self.position.place
        let line = self.lineIndex(place)
        let part = self.position.part
        guard var tokens = try self.tokens(at: place) else {
            self.position.place += 1
            self.position.part = 0
            return nil
        }
        let parts = self.maker.parts(of: tokens.count)
        if parts > 1 {
            self.lookahead = (place, tokens)
            tokens = self.maker.part(min(part, parts - 1), of: tokens)
            self.position.part = part + 1 < parts ? part + 1 : 0
            self.position.place += part + 1 < parts ? 0 : 1
        } else {
            self.lookahead = nil
            self.position.place += 1
            self.position.part = 0
            try self.join(&tokens)
        }
        do throws(LineFault.Reason) {
            return try self.maker.corrupted(
                tokens,
                line: (line, part),
                seed: self.position.seed,
                epoch: self.position.epoch
            )
        } catch {
            try self.note(error, line: line)
            return nil
        }
    }

    /// Adds the following lines as long as they fit.
    private mutating func join(_ tokens: inout [Int32]) throws(DataError) {
        guard self.maker.settings.joinsLines else { return }
        while self.position.place < self.linesPerEpoch {
            guard let more = try self.tokens(at: self.position.place) else {
                self.position.place += 1
                continue
            }
            guard tokens.count + more.count <= self.maker.longestText else {
                self.lookahead = (self.position.place, more)
                return
            }
            tokens += more
            self.position.place += 1
        }
    }
}
