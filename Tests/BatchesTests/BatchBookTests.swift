// SPDX-License-Identifier: Apache-2.0

import Batches
import Testing

/// The order in which a batch's lines are asked and written, in virtual time.
@Suite("batch book")
struct BatchBookTests {
    /// Numbers that a seed decides (https://prng.di.unimi.it/splitmix64.c).
    private struct Draws: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            self.state &+= 0x9E37_79B9_7F4A_7C15
            var value = self.state
            value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
            return value ^ (value >> 31)
        }
    }

    private static let start = ContinuousClock.now

    @Test("whatever the order of answers and refusals, every line is written once and in order", arguments: 0..<200)
    func randomRuns(seed: UInt64) {
        var draws = Draws(state: seed)
        let count = Int.random(in: 0...60, using: &draws)
        let written = Int.random(in: 0...count, using: &draws)
        var book = BatchBook(
            count: count,
            written: written,
            mostAtOnce: Int.random(in: 1...9, using: &draws),
            now: Self.start
        )
        var now = Self.start
        var flying: [Int] = []
        var output: [Int] = []
        var events = 0
        run: while true {
            events += 1
            #expect(events < 100_000, "the book makes no headway")
            if events >= 100_000 { return }
            book.checkInvariants()
            switch book.step(now: now) {
            case .finished: break run
            case .ask(let line):
                #expect(!flying.contains(line) && line >= written)
                flying.append(line)
                #expect(flying.count <= book.allowed)
            case .wait(let until):
                guard let line = flying.randomElement(using: &draws) else {
                    // Nothing is in flight, so there must be a time to wait for.
                    guard let until else {
                        Issue.record("nothing is in flight and nothing is waited for")
                        return
                    }
                    now = max(now, until)
                    continue
                }
                now += .milliseconds(Int.random(in: 0...20, using: &draws))
                flying.removeAll { $0 == line }
                if Int.random(in: 0..<4, using: &draws) == 0 {
                    let time = now + .milliseconds(Int.random(in: 0...50, using: &draws))
                    book.turnedAway(line, isFull: Bool.random(using: &draws), until: time, now: now)
                } else {
                    for answer in book.answered(line, [UInt8(line)], now: now) { output.append(Int(answer[0])) }
                }
            }
        }
        #expect(output == Array(written..<count))
        #expect(flying.isEmpty)
    }

    /// The lines that a book asks until it waits.
    private static func asked(_ book: inout BatchBook, _ now: ContinuousClock.Instant) -> [Int] {
        var lines: [Int] = []
        while case .ask(let line) = book.step(now: now) { lines.append(line) }
        return lines
    }

    @Test("lines that find no room halve what is in flight once, and answers bring it back")
    func room() {
        var book = BatchBook(count: 1000, written: 0, mostAtOnce: 8, now: Self.start)
        let now = Self.start + .seconds(1)
        #expect(Self.asked(&book, now) == Array(0..<8))
        for line in 4..<8 { book.turnedAway(line, isFull: true, until: now + .milliseconds(10), now: now) }
        #expect(book.allowed == 4, "four refusals of one moment are one cut")
        let later = now + .milliseconds(20)
        for line in 0..<4 { _ = book.answered(line, [], now: later) }
        #expect(book.allowed == 5)
        #expect(Self.asked(&book, later) == [4, 5, 6, 7, 8], "the oldest lines come first")
        for line in 4..<9 { _ = book.answered(line, [], now: later) }
        #expect(book.allowed == 6)
    }

    @Test("a line that stays away does not let answers pile up")
    func window() {
        var book = BatchBook(count: 1000, written: 0, mostAtOnce: 4, now: Self.start)
        var flying = Self.asked(&book, Self.start)
        while let line = flying.last, line != 0 {
            flying.removeLast()
            #expect(book.answered(line, [], now: Self.start).isEmpty)
            flying += Self.asked(&book, Self.start)
        }
        #expect(flying == [0])
        #expect(book.answered(0, [], now: Self.start).count == book.window)
    }
}
