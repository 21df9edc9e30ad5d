// SPDX-License-Identifier: Apache-2.0

/// What a shard's experts were told since a state that is kept elsewhere: entries in their order, by step, and where their rows are.
///
/// A value that takes events and time. Rows begin in memory. Where there are files for them, the oldest leave it once half of
/// its bound is taken: the other half is for rows on their way to a file, and for a disk that is full for a while.
struct ShardLog: Sendable {
    /// How large a log may become.
    struct Bounds: Sendable, Hashable {
        /// Bytes of rows in memory.
        var memory = Int.max
        /// Bytes of rows in files; 0 where there are none.
        var files = 0
    }

    /// Where an entry's rows are.
    enum Place: Sendable, Hashable {
        case memory
        /// In memory, and being written to a file.
        case moving
        case file
    }

    /// An entry whose rows shall leave the memory.
    ///
    /// A number is never given twice, an index is: a void attempt's entries make room.
    struct Move: Sendable, Hashable {
        var index: Int
        var number: Int
    }

    private struct Kept {
        var entry: ShardBook.Entry
        var bytes: Int
        var number: Int
        var place = Place.memory
    }

    /// How long no file is written after one could not be.
    static let filePause = Duration.seconds(2)

    /// How large the log may become.
    let bounds: Bounds
    /// The step that is being computed.
    private(set) var step: Int
    /// The first step whose entries are kept.
    private(set) var firstStep: Int
    /// The index of each kept step's first entry, the current step's last.
    private var starts: [Int]
    /// The attempt of each kept step that counts.
    private var attempts = [0]
    private var entries: [Kept] = []
    private var nextNumber = 0
    /// Every entry before it has left the memory, or has no rows.
    private var nextMove: Int
    private var filesAreAwayUntil: ContinuousClock.Instant?
    /// The last entry of an earlier step whose rows cannot be read any more.
    private var lastDamaged: Int?
    /// Bytes of all kept entries.
    private(set) var byteCount = 0
    /// Bytes of those that are being written to a file.
    private(set) var movingByteCount = 0
    /// Bytes of those that are in files.
    private(set) var fileByteCount = 0
    /// Bytes of the largest step so far.
    private(set) var largestStep = 0

    /// An empty log.
    ///
    /// - Parameters:
    ///   - step: Steps that were taken.
    ///   - bounds: How large it may become.
    init(step: Int, bounds: Bounds = Bounds()) {
        self.bounds = bounds
        self.step = step
        self.firstStep = step
        self.starts = [0]
        self.nextMove = 0
    }

    /// Bytes that are in memory, those on their way to a file included.
    var memoryByteCount: Int { self.byteCount - self.fileByteCount }

    /// Whether a file could not be written of late.
    var filesAreAway: Bool { self.filesAreAwayUntil != nil }

    /// The index of the first kept entry.
    var firstIndex: Int { self.starts.first ?? 0 }

    /// The index after the last entry.
    var end: Int { self.firstIndex + self.entries.count }

    /// The index of the current step's first entry.
    var stepStart: Int { self.starts.last ?? 0 }

    /// Steps whose entries are kept, the current one included.
    var keptSteps: Int { self.step - self.firstStep + 1 }

    /// Steps that begin after an entry.
    func steps(after index: Int) -> Int { self.starts.count { $0 > index } }

    /// The index of a kept step's first entry; nil for another step, and where an entry from there on cannot be read.
    func start(of step: Int) -> Int? {
        guard step >= self.firstStep, step <= self.step else { return nil }
        let start = self.starts[step - self.firstStep]
        return self.isReadable(from: start) ? start : nil
    }

    /// Whether an entry cannot be read.
    var isDamaged: Bool { self.lastDamaged != nil }

    /// Whether all entries from an index on can be read.
    func isReadable(from index: Int) -> Bool { self.lastDamaged.map { $0 < index } ?? true }

    /// The entry that a host takes next which has taken so much; nil where the log does not reach back so far.
    func index(of place: (step: Int, attempt: Int, records: Int)) -> Int? {
        guard place.step >= self.firstStep, place.step <= self.step else { return nil }
        let kept = place.step - self.firstStep
        let start = self.starts[kept]
        // Of another attempt, the host forgets what it has at the first entry.
        let end = place.step == self.step ? self.end : self.starts[kept + 1] - 1
        let index = place.attempt == self.attempts[kept] ? min(start + place.records, end) : start
        return self.isReadable(from: index) ? index : nil
    }

    // MARK: - Steps

    /// Adds an entry to the current step.
    ///
    /// - Returns: Its index.
    mutating func append(_ entry: ShardBook.Entry, bytes: Int) -> Int {
        let index = self.end
        self.entries.append(Kept(entry: entry, bytes: bytes, number: self.nextNumber))
        self.nextNumber += 1
        self.byteCount += bytes
        return index
    }

    /// Begins the next step.
    mutating func endStep() {
        let bytes = self.entries[(self.stepStart - self.firstIndex)...].reduce(0) { $0 + $1.bytes }
        self.largestStep = max(self.largestStep, bytes)
        self.step += 1
        self.starts.append(self.end)
        self.attempts.append(0)
    }

    /// Forgets the current step's entries, for another attempt at it.
    mutating func beginAttempt(_ attempt: Int) {
        self.attempts[self.attempts.count - 1] = attempt
        self.remove((self.stepStart - self.firstIndex)..<self.entries.count)
        self.nextMove = min(self.nextMove, self.end)
    }

    /// Forgets the entries before a step.
    ///
    /// - Returns: Whether there were any.
    mutating func forget(before step: Int) -> Bool {
        let count = min(step, self.step) - self.firstStep
        guard count > 0 else { return false }
        let start = self.starts[count]
        self.remove(0..<start - self.firstIndex)
        self.starts.removeSubrange(..<count)
        self.attempts.removeSubrange(..<count)
        self.firstStep += count
        self.nextMove = max(self.nextMove, start)
        if let damaged = self.lastDamaged, damaged < start { self.lastDamaged = nil }
        return true
    }

    private mutating func remove(_ range: Range<Int>) {
        for kept in self.entries[range] {
            self.byteCount -= kept.bytes
            if kept.place == .moving { self.movingByteCount -= kept.bytes }
            if kept.place == .file { self.fileByteCount -= kept.bytes }
        }
        self.entries.removeSubrange(range)
    }

    // MARK: - Files

    /// Entries whose rows shall leave the memory now, the oldest first.
    ///
    /// - Returns: The entries, each answered by ``moved(_:)`` or ``couldNotMove(_:now:)``.
    mutating func moves() -> [Move] {
        guard self.bounds.files > 0, self.filesAreAwayUntil == nil else { return [] }
        var moves: [Move] = []
        while self.memoryByteCount - self.movingByteCount > self.bounds.memory / 2, self.nextMove < self.end {
            let index = self.nextMove - self.firstIndex
            let kept = self.entries[index]
            if kept.place == .memory, kept.bytes > 0 {
                guard self.fileByteCount + self.movingByteCount + kept.bytes <= self.bounds.files else { break }
                self.entries[index].place = .moving
                self.movingByteCount += kept.bytes
                moves.append(Move(index: self.nextMove, number: kept.number))
            }
            self.nextMove += 1
        }
        return moves
    }

    /// Notes that an entry's rows are in a file.
    ///
    /// - Returns: Whether the entry is still kept; if not, its place in the file is free.
    mutating func moved(_ move: Move) -> Bool {
        guard let index = self.moving(move) else { return false }
        self.entries[index].place = .file
        self.movingByteCount -= self.entries[index].bytes
        self.fileByteCount += self.entries[index].bytes
        return true
    }

    /// Notes that an entry's rows could not be written, and stay in memory.
    mutating func couldNotMove(_ move: Move, now: ContinuousClock.Instant) {
        self.filesAreAwayUntil = now.advanced(by: Self.filePause)
        guard let index = self.moving(move) else { return }
        self.entries[index].place = .memory
        self.movingByteCount -= self.entries[index].bytes
        self.nextMove = min(self.nextMove, move.index)
    }

    private func moving(_ move: Move) -> Int? {
        let index = move.index - self.firstIndex
        guard self.entries.indices.contains(index), self.entries[index].number == move.number,
            self.entries[index].place == .moving
        else { return nil }
        return index
    }

    /// Notes that an entry's rows cannot be read from their file.
    ///
    /// - Returns: Whether it belongs to an earlier step. Otherwise the step must begin again, which forgets the entry.
    mutating func damaged(_ index: Int) -> Bool {
        guard index >= self.firstIndex, index < self.stepStart else { return false }
        self.lastDamaged = max(self.lastDamaged ?? index, index)
        return true
    }

    /// Lets time pass.
    mutating func tick(now: ContinuousClock.Instant) {
        if let end = self.filesAreAwayUntil, end <= now { self.filesAreAwayUntil = nil }
    }

    /// What cannot be.
    ///
    /// - Returns: The fault; nil where there is none.
    func checkInvariants() -> String? {
        if self.starts.count != self.keptSteps { return "\(self.starts.count) starts" }
        if self.attempts.count != self.keptSteps { return "\(self.attempts.count) attempts" }
        if zip(self.starts, self.starts.dropFirst()).contains(where: { $0 >= $1 }) { return "starts \(self.starts)" }
        func bytes(_ place: Place?) -> Int {
            self.entries.reduce(0) { $0 + (place == nil || $1.place == place ? $1.bytes : 0) }
        }
        if self.byteCount != bytes(nil) { return "\(self.byteCount) bytes" }
        if self.movingByteCount != bytes(.moving) { return "\(self.movingByteCount) bytes on their way" }
        if self.fileByteCount != bytes(.file) { return "\(self.fileByteCount) bytes in files" }
        if self.fileByteCount + self.movingByteCount > self.bounds.files {
            return "\(self.fileByteCount) bytes in files"
        }
        if self.nextMove < self.firstIndex || self.nextMove > self.end { return "the next move is \(self.nextMove)" }
        let passed = self.entries.prefix(self.nextMove - self.firstIndex)
        if passed.contains(where: { $0.place == .memory && $0.bytes > 0 }) { return "an old entry stays in memory" }
        if let lastDamaged, lastDamaged < self.firstIndex || lastDamaged >= self.stepStart {
            return "a damaged entry at \(lastDamaged)"
        }
        return nil
    }
}
