// SPDX-License-Identifier: Apache-2.0

/// A batch of lines as a value: which are asked, which wait for another try, and which answers are written next.
///
/// Answers come in any order and are written in the order of the lines. How many lines are asked at once follows what is
/// taken: it halves when a line is turned away and grows by one with as many answers as there are lines in flight
/// (additive increase, multiplicative decrease; section 3.1 of https://www.rfc-editor.org/rfc/rfc5681).
package struct BatchBook: Sendable {
    /// What to do next.
    package enum Step: Sendable, Hashable {
        /// Ask this line.
        case ask(Int)
        /// Nothing until an answer comes, or until this time.
        case wait(until: ContinuousClock.Instant?)
        /// All lines are written.
        case finished
    }

    /// How many lines there are.
    package let count: Int
    /// The most lines in flight.
    package let mostAtOnce: Int
    /// The most lines that are asked but not yet written: this bounds the answers in memory.
    package let window: Int

    /// Lines that are written; the first of those that are not has this index.
    package private(set) var written: Int
    /// How many lines may be in flight at present.
    package private(set) var allowed: Int
    /// The last time at which a line was answered; the batch's beginning before the first.
    package private(set) var lastAnswer: ContinuousClock.Instant

    private var next: Int
    private var inFlight: [Int: ContinuousClock.Instant] = [:]
    private var again: [Int: ContinuousClock.Instant] = [:]
    private var answers: [Int: [UInt8]] = [:]
    private var lastCut: ContinuousClock.Instant?
    private var answersSinceGrowth = 0

    /// Begins or goes on with a batch.
    ///
    /// - Parameters:
    ///   - count: How many lines there are; at least 0.
    ///   - written: Lines that an earlier run has written, 0 to `count`.
    ///   - mostAtOnce: The most lines in flight; at least 1.
    ///   - now: The time.
    package init(count: Int, written: Int, mostAtOnce: Int, now: ContinuousClock.Instant) {
        precondition(count >= 0 && (0...count).contains(written) && mostAtOnce >= 1, "\(written) of \(count) lines")
        self.count = count
        self.written = written
        self.next = written
        self.mostAtOnce = mostAtOnce
        self.window = 8 * mostAtOnce
        self.allowed = mostAtOnce
        self.lastAnswer = now
    }

    /// Lines in flight.
    package var asked: Int { self.inFlight.count }

    /// Says what to do next; call it again until it says to wait.
    ///
    /// - Parameter now: The time.
    /// - Returns: The step. A line that is to be asked is in flight from now on.
    package mutating func step(now: ContinuousClock.Instant) -> Step {
        if self.written == self.count { return .finished }
        guard self.inFlight.count < self.allowed else { return .wait(until: nil) }
        // The oldest line first: the others wait for it to be written.
        let due = self.again.filter { $0.value <= now }.keys.min()
        if let line = due {
            self.again[line] = nil
            self.inFlight[line] = now
            return .ask(line)
        }
        if self.next < self.count, self.next < self.written + self.window, self.again.isEmpty {
            defer { self.next += 1 }
            self.inFlight[self.next] = now
            return .ask(self.next)
        }
        return .wait(until: self.again.values.min())
    }

    /// Takes a line's answer.
    ///
    /// - Parameters:
    ///   - line: The line, which is in flight.
    ///   - answer: What is written for it, without the line's end.
    ///   - now: The time.
    /// - Returns: The answers that are to be written now, in order.
    package mutating func answered(_ line: Int, _ answer: [UInt8], now: ContinuousClock.Instant) -> [[UInt8]] {
        precondition(self.inFlight.removeValue(forKey: line) != nil, "line \(line) is not in flight")
        self.lastAnswer = now
        self.answersSinceGrowth += 1
        if self.answersSinceGrowth >= self.allowed, self.allowed < self.mostAtOnce {
            self.allowed += 1
            self.answersSinceGrowth = 0
        }
        self.answers[line] = answer
        var due: [[UInt8]] = []
        while let answer = self.answers.removeValue(forKey: self.written) {
            due.append(answer)
            self.written += 1
        }
        return due
    }

    /// Takes a line back that could not be answered now.
    ///
    /// - Parameters:
    ///   - line: The line, which is in flight.
    ///   - isFull: Whether there was no room for it, so that fewer lines should be in flight.
    ///   - time: When to ask again.
    ///   - now: The time.
    package mutating func turnedAway(
        _ line: Int,
        isFull: Bool,
        until time: ContinuousClock.Instant,
        now: ContinuousClock.Instant
    ) {
        guard let asked = self.inFlight.removeValue(forKey: line) else {
            preconditionFailure("line \(line) is not in flight")
        }
        // Lines that were asked before the last cut tell of the time before it.
        if isFull, self.lastCut.map({ asked > $0 }) ?? true {
            self.allowed = max(1, self.allowed / 2)
            self.answersSinceGrowth = 0
            self.lastCut = now
        }
        self.again[line] = time
    }

    /// Stops the process if the book is inconsistent; for tests.
    package func checkInvariants() {
        precondition((1...self.mostAtOnce).contains(self.allowed))
        precondition(self.inFlight.count <= self.mostAtOnce)
        precondition(self.written <= self.next && self.next <= min(self.count, self.written + self.window))
        let held = Set(self.inFlight.keys).union(self.again.keys).union(self.answers.keys)
        precondition(
            held.count == self.inFlight.count + self.again.count + self.answers.count,
            "a line is in two states"
        )
        precondition(held == Set(self.written..<self.next), "a line is lost")
        precondition(self.answers[self.written] == nil, "an answer that is due was kept")
    }
}
